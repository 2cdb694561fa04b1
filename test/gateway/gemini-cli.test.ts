import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openTurn } from '../../db/queries/turns.ts';
import { installed } from '../support/harnesses.ts';
import { startGatewayProcess, type GatewayProcess } from './gateway-process.ts';
import { createSession, eventually, ledgerRows, mintKey, openTestBed, scriptText, type TestBed } from './support.ts';

const WAIT_MS = 300_000;
const gemini = await installed('gemini');
const title = gemini.binary === undefined ? `Gemini CLI (not tested: ${gemini.reason})` : 'Gemini CLI';

let bed: TestBed;
let gateway: GatewayProcess;
let folder: string;
beforeAll(async () => {
  bed = await openTestBed();
  gateway = await startGatewayProcess({ DATABASE_URL: bed.databaseUrl, LONGHAUL_SCRIPTED: '1' });
  folder = await mkdtemp(path.join(tmpdir(), 'gemini-'));
  await mkdir(path.join(folder, '.gemini'), { recursive: true });
  const settings = {
    security: { auth: { selectedType: 'gemini-api-key' }, folderTrust: { enabled: false } },
    general: { disableAutoUpdate: true },
    privacy: { usageStatisticsEnabled: false },
  };
  await writeFile(path.join(folder, '.gemini', 'settings.json'), JSON.stringify(settings));
}, WAIT_MS);
afterAll(async () => {
  await gateway.stop();
  await bed.close();
  await rm(folder, { recursive: true, force: true });
}, WAIT_MS);

/** One prompt without anybody to ask; every tool may run. */
async function run(key: string, prompt: string): Promise<{ code: number | null; out: string; said: string }> {
  const { path: program = '', args = [] } = gemini.binary ?? {};
  const child = spawn(program, [...args, '-m', 'scripted', '--approval-mode', 'yolo', '-p', prompt], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env['PATH'],
      HOME: folder,
      GEMINI_CLI_HOME: folder,
      GEMINI_CLI_NO_RELAUNCH: 'true',
      GEMINI_API_KEY: key,
      GOOGLE_GEMINI_BASE_URL: gateway.url,
    },
  });
  let [out, said] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, out, said };
}

describe.skipIf(gemini.binary === undefined)(title, () => {
  it(
    'works through the gateway: a tool, its result, the answer, each call on the turn of the session',
    async () => {
      const sessionId = await createSession(bed.pool);
      const key = await mintKey(bed.pool, { sessionId, followsTurn: true });
      await openTurn(bed.pool, sessionId, 7, 'scripted');
      const command = 'echo written-by-the-command > made.txt; cat made.txt';
      const prompt = scriptText([
        { thinking: 'hm', text: 'I write.', tools: [{ name: 'run_shell_command', input: { command } }] },
        { text: 'All done.', usage: { input: 11, output: 22 } },
      ]);
      const { code, out, said } = await run(key, prompt);
      expect([code, out, said]).toEqual([0, expect.stringContaining('All done.'), expect.any(String)]);
      expect(await readFile(path.join(folder, 'made.txt'), 'utf8')).toBe('written-by-the-command\n');
      const rows = await eventually(async () => {
        const found = (await ledgerRows(bed.pool)).filter((row) => row['session_id'] === sessionId);
        return found.some((row) => Number(row['output_tokens']) === 22) && found;
      });
      expect(rows.map((row) => row['protocol'])).toEqual(rows.map(() => 'gemini'));
      expect(rows.map((row) => row['turn'])).toEqual(rows.map(() => 7));
      expect(new Set(rows.map((row) => row['step'])).size).toBe(rows.length);
      expect(rows.map((row) => row['error'])).toEqual(rows.map(() => null));
    },
    WAIT_MS,
  );
});
