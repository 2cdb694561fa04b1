import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createClient } from '../../client/index.ts';
import { startStack, type TestStack } from '../support/stack.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const readme = readFileSync(path.join(ROOT, 'README.md'), 'utf8');

/** The fenced block of a language that holds `marker`. */
function blockWith(language: string, marker: string): string {
  const blocks = [...readme.matchAll(/^(`{3,})(\w+)\n([\s\S]*?)^\1$/gm)];
  const found = blocks.find(([, , name, body]) => name === language && body?.includes(marker));
  if (found?.[3] === undefined) throw new Error(`the README has no ${language} block with ${marker}`);
  return found[3];
}

describe('what the README tells people to paste', () => {
  let stack: TestStack;
  let folder: string;
  beforeAll(async () => {
    stack = await startStack();
    folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-readme-'));
    symlinkSync(stack.home, path.join(folder, '.longhaul'));
  });
  afterAll(async () => {
    await stack.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  it('five requests lead to an approved command and its result', async () => {
    const block = blockWith('sh', 'AGENT=$(curl');
    expect(block.split('\n').filter((line) => line.includes('curl '))).toHaveLength(5);
    const { stdout } = await promisify(execFile)('bash', ['-c', `${block}\necho; echo $SESSION`], { cwd: folder });
    const sessionId = stdout.trim().split('\n').at(-1) ?? '';
    const client = createClient({ apiUrl: stack.url, apiKey: stack.key });
    const said: unknown[] = [];
    for await (const event of client.sessions.follow(sessionId, { after: 0 })) {
      if (event.type === 'agent.message') said.push((event as { content?: unknown }).content);
      const reason = (event as { stop_reason?: { type: string } }).stop_reason?.type;
      if (reason !== undefined && reason !== 'requires_action') break;
    }
    expect(said).toEqual([[{ type: 'text', text: 'It said: hello from the sandbox\n' }]]);
  });

  it('the official SDK talks to it by its base URL', async () => {
    const snippet = blockWith('ts', '@anthropic-ai/sdk');
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', snippet], {
      cwd: ROOT,
      env: { PATH: process.env['PATH'], URL: stack.url, KEY: stack.key },
      timeout: 30_000,
    });
    expect(stdout).toContain('You said: "Hello!"');
  });
});
