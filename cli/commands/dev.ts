import { spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { inheritedEnvironment, type CliConfig } from '../config.ts';
import { EXIT, messageOf, say } from '../output.ts';
import { homePaths, prepareHome, readDevJson, type DevJson, type HomePaths } from '../stack/home.ts';
import { acquireLock, lockHolder } from '../stack/lock.ts';
import { LogFile } from '../stack/logs.ts';
import { Stack } from '../stack/stack.ts';

const SAME_KEY_MS = 300;

interface DevOptions {
  detach: boolean;
  port: number | undefined;
}

/** What a detached supervisor tells the command that started it. */
type Report = { type: 'progress'; line: string } | { type: 'ready' } | { type: 'failed'; message: string };

function report(message: Report): void {
  if (process.send !== undefined && process.connected) process.send(message);
}

function urls(devJson: DevJson, paths: HomePaths): string {
  const key = `"x-api-key: $(cat ${paths.apiKey})"`;
  return [
    '',
    `  API           ${devJson.apiUrl}`,
    `  Docs          ${devJson.apiUrl}/docs`,
    `  Temporal UI   ${devJson.temporalUiUrl ?? '(set TEMPORAL_UI_URL to link yours)'}`,
    `  API key       ${paths.apiKey}`,
    '',
    '  Next:',
    `    curl -H ${key} ${devJson.apiUrl}/v1/sessions`,
    '    longhaul status      what runs, and is it well',
    `    tail -f ${paths.logs}/*.log`,
    '    longhaul stop        ends it; all data stays for the next start',
    '',
  ].join('\n');
}

function alreadyRuns(paths: HomePaths): number {
  const devJson = readDevJson(paths);
  if (devJson === null) {
    say(`Another \`longhaul dev\` is just starting or stopping in ${paths.home}.`);
    return EXIT.failed;
  }
  say(`Longhaul already runs in ${paths.home}:`);
  say(urls(devJson, paths));
  return EXIT.ok;
}

/** Runs the whole stack on this machine until a signal or `longhaul stop`. */
export async function dev(config: CliConfig, options: DevOptions): Promise<number> {
  const paths = homePaths(config.home);
  prepareHome(paths);
  if (lockHolder(paths.lock) !== null) return alreadyRuns(paths);
  return options.detach ? startDetached(paths, options) : supervise(config, paths, options);
}

/** Starts the supervisor as a process of its own and returns when the stack is ready. */
function startDetached(paths: HomePaths, options: DevOptions): Promise<number> {
  const log = new LogFile(paths.logs, 'supervisor');
  log.rotate();
  const fd = log.open();
  const args = [...process.execArgv, process.argv[1] ?? '', 'dev'];
  if (options.port !== undefined) args.push('--port', String(options.port));
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', fd, fd, 'ipc'],
    detached: true,
    env: { ...inheritedEnvironment(), LONGHAUL_HOME: paths.home },
  });
  closeSync(fd);
  const passOn = (): void => void child.kill('SIGTERM');
  process.on('SIGINT', passOn);
  process.on('SIGTERM', passOn);
  return new Promise((resolve) => {
    const finish = (code: number): void => {
      child.removeAllListeners();
      if (child.connected) child.disconnect();
      child.unref();
      resolve(code);
    };
    child.on('message', (message: Report) => {
      if (message.type === 'progress') say(message.line);
      if (message.type === 'failed') say(message.message);
      if (message.type !== 'ready') return;
      const devJson = readDevJson(paths);
      if (devJson !== null) say(urls(devJson, paths));
      finish(EXIT.ok);
    });
    child.once('error', (error) => {
      say(messageOf(error));
      finish(EXIT.failed);
    });
    child.once('exit', (code) => finish(code === EXIT.ok ? EXIT.failed : (code ?? EXIT.failed)));
  });
}

/** Resolves with the first signal that asks to end; a second one ends everything at once. */
function firstSignal(onSecond: () => void): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let firstMs: number | undefined;
    const onSignal = (signal: NodeJS.Signals): void => {
      // Under npm one Ctrl-C arrives twice: from the terminal, and passed on by npm.
      if (firstMs !== undefined && Date.now() - firstMs > SAME_KEY_MS) onSecond();
      firstMs ??= Date.now();
      resolve(signal);
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  });
}

function progress(line: string): void {
  say(line);
  report({ type: 'progress', line });
}

async function supervise(config: CliConfig, paths: HomePaths, options: DevOptions): Promise<number> {
  const lock = acquireLock(paths.lock);
  if (lock === null) return alreadyRuns(paths);
  const stack = new Stack({ config, apiPort: options.port, say: progress });
  const force = (): never => {
    say('Ending everything at once.');
    stack.kill();
    lock.release();
    process.exit(EXIT.interrupted);
  };
  const signal = firstSignal(force);
  const starting = stack.start();
  const outcome = await Promise.race([
    starting.then(
      () => 'ready' as const,
      (error: unknown) => ({ error }),
    ),
    signal,
  ]);
  try {
    if (outcome === 'ready') {
      const devJson = await starting;
      if (process.send === undefined) say(urls(devJson, paths));
      report({ type: 'ready' });
      say(`Stopping (${await signal}); once more ends everything at once.`);
      await stack.stop();
      return EXIT.ok;
    }
    await stack.stop();
    // A start that was interrupted fails as soon as its processes are gone.
    await starting.catch(() => undefined);
    if (typeof outcome === 'string') return EXIT.interrupted;
    say(messageOf(outcome.error));
    report({ type: 'failed', message: messageOf(outcome.error) });
    return EXIT.failed;
  } finally {
    lock.release();
  }
}
