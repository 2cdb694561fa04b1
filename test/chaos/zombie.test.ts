import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkInvariants } from '../support/invariants.ts';
import { recorded } from '../support/recorder.ts';
import { bash, SessionDriver, STACK_TEST_MS } from '../support/session-driver.ts';
import { startStack, type TestStack } from '../support/stack.ts';

const write = (content: string): ReturnType<typeof bash> => ({ name: 'write', input: { file_path: 'file', content } });

/** Leaves a process behind that stops the next file write of its sandbox in the middle, until a file \`go\` is there. */
const STOP_A_WRITE = `(while :; do for p in /proc/[0-9]*; do mapfile -d '' -t a 2>/dev/null < $p/cmdline
  if [ "\${a[3]}" = write ]; then kill -STOP \${p#/proc/}; touch stopped; until [ -e go ]; do sleep 0.1; done; kill -CONT \${p#/proc/}; exit; fi
done; done) > /dev/null 2>&1 &`;

/** A second worker of the same stack, with the environment of the first. */
async function secondWorker(pid: number): Promise<ChildProcess> {
  const pairs = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').filter(Boolean);
  const env = Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s).slice(0, 2) as [string, string]));
  delete env['NODE_CHANNEL_FD'];
  const main = fileURLToPath(new URL('../../dist/worker/main.js', import.meta.url));
  const child = spawn(process.execPath, [main], { env, stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
  await once(child, 'message');
  return child;
}

describe('a worker that is taken for dead and comes back', { timeout: STACK_TEST_MS }, () => {
  let stack: TestStack;
  let driver: SessionDriver;
  let second: ChildProcess | undefined;
  let frozen: number | undefined;
  beforeAll(async () => {
    stack = await startStack();
    driver = new SessionDriver(stack);
  });
  afterAll(async () => {
    second?.kill('SIGKILL');
    // A worker that is left frozen would not hear that it is to stop.
    if (frozen !== undefined) process.kill(frozen, 'SIGCONT');
    await driver.close();
    await stack.stop();
  });

  it('finds its work finished by another one and adds nothing to it', async () => {
    const first = stack.pids().worker;
    if (first === null) throw new Error('the stack runs no worker of its own');
    const streaming = await driver.open([{ text: 'pieces', chunks: 30, chunkMs: 100 }, { text: 'unused' }]);
    const running = await driver.open([{ tools: [bash(recorded('running', 3))] }, { text: 'ran' }]);
    const asking = await driver.open([{ tools: [bash(recorded('asking'))] }], { policy: 'always_ask' });
    const writing = await driver.open([
      { tools: [bash(STOP_A_WRITE)] },
      { tools: [write('early')] },
      { tools: [write('later')] },
      { text: 'written' },
    ]);
    const approval = await driver.pendingApproval(asking);
    await driver.ran(running, 'running');
    const inWorkspace = async (name: string): Promise<string> =>
      path.join(await driver.recorder.workspaceOf(writing), name);
    await driver.until('a write is stopped', async () => existsSync(await inWorkspace('stopped').catch(() => '')));
    await driver.untilSql('the call runs', streaming, `EXISTS (SELECT 1 FROM model_calls c WHERE c.session_id = s.id)`);

    process.kill(first, 'SIGSTOP');
    frozen = first;
    try {
      second = await secondWorker(first);
      // Slow by nature: the open polls of the frozen worker still swallow tasks, and each is given out again only after
      // its timeout (10 s a workflow task, 10 s a record, 5 s a heartbeat); several of them may follow each other.
      expect((await driver.decide(approval.id, 'allow')).status).toBe(200);
      writeFileSync(await inWorkspace('go'), '', { mode: 0o644 });
      await driver.quiet([streaming, running, asking, writing]);
    } finally {
      process.kill(first, 'SIGCONT');
      frozen = undefined;
    }
    expect(stack.pids().worker).toBe(first);
    const counts = (): Promise<unknown[]> =>
      driver.query(
        `SELECT s.id, s.last_seq, (SELECT count(*) FROM ledger l WHERE l.session_id = s.id) AS ledger,
           (SELECT count(*) FROM audit a WHERE a.session_id = s.id) AS audit FROM sessions s ORDER BY s.id`,
      );
    const before = await counts();
    // New work that the first worker takes proves that it is back and has had its chance.
    second.kill('SIGKILL');
    await once(second, 'exit');
    const proof = await driver.open([{ tools: [bash(recorded('proof'))] }, { text: 'back' }]);
    await driver.quiet([proof]);
    expect((await counts()).filter((row) => (row as { id: string }).id !== proof)).toEqual(before);
    expect(await driver.recorder.traces(running, 'running')).toEqual({ starts: 1, ends: 1 });
    expect(readFileSync(await inWorkspace('file'), 'utf8')).toBe('later');
    expect(await driver.approvals(writing)).toEqual([]);
    const { query, recorder } = driver;
    const temporal = await driver.temporal();
    for (const id of [streaming, running, asking, writing, proof]) {
      expect(await driver.turnEnds(id)).toEqual(['end_turn']);
      await checkInvariants(query, id, { recorder, temporal });
    }
  });
});
