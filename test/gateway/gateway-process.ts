import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../dist/gateway/main.js', import.meta.url));

/** A gateway as a process of its own, to be killed. */
export interface GatewayProcess {
  url: string;
  /** `kill -9`; resolves when it is gone. */
  kill(): Promise<void>;
  /** SIGTERM; resolves when it has ended. */
  stop(): Promise<void>;
}

/** Resolves when it listens. */
export async function startGatewayProcess(env: Record<string, string>): Promise<GatewayProcess> {
  if (!existsSync(MAIN)) throw new Error('dist/gateway/main.js does not exist: run `npm run build` first');
  const child = spawn(process.execPath, [MAIN], {
    env: { PATH: process.env['PATH'], LONGHAUL_GATEWAY_PORT: '0', LONGHAUL_LOG_LEVEL: 'info', ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout });
  const port = await new Promise<number>((resolve, reject) => {
    lines.on('line', (line) => {
      const { msg, port: found, level } = JSON.parse(line) as { msg: string; port?: number; level?: unknown };
      if (msg === 'gateway listens' && found !== undefined) resolve(found);
      else if (level === 'error' || level === 50) process.stderr.write(`${line}\n`);
    });
    child.once('exit', () => reject(new Error('the gateway ended before it listened')));
  });
  return {
    url: `http://127.0.0.1:${port}`,
    kill: () => end(child, 'SIGKILL'),
    stop: () => end(child, 'SIGTERM'),
  };
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  await ended;
}
