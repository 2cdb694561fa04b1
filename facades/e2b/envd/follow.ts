import type { ExecPoll, ExecState } from '../../../activities/sandbox/port.ts';
import { endE2bProcess } from '../../../db/queries/e2b-processes.ts';
import type { E2bDeps } from '../sandboxes.ts';
import { RpcError, type RpcStream } from './connect.ts';
import { execIdOf } from './run.ts';
import type { RpcContext } from './services.ts';

const WAIT_MS = 10_000;

interface Followed {
  pid: number;
  kind: 'command' | 'pty';
  from: { out: number; err: number };
}

/** Tells a command's output and its end to a stream, from the journal: any number of streams may follow one command. */
export async function followProcess(
  deps: E2bDeps,
  context: RpcContext,
  stream: RpcStream,
  { pid, kind, from }: Followed,
): Promise<void> {
  const { live, signal, keepaliveMs, timeoutMs } = context;
  const deadlineMs = timeoutMs === undefined ? Infinity : Date.now() + timeoutMs;
  let next = from;
  let toldMs = Date.now();
  await stream.send({ event: { start: { pid } } });
  while (!signal.aborted) {
    const waitMs = Math.max(0, Math.min(WAIT_MS, keepaliveMs, deadlineMs - Date.now()));
    const poll = await deps.provider.execPoll(live.ref, execIdOf(pid), next, waitMs, signal);
    next = poll.next;
    if (poll.stdout.length > 0 || poll.stderr.length > 0) {
      await tell(stream, poll, kind);
      toldMs = Date.now();
      continue;
    }
    if (poll.status.state !== 'running') {
      await endE2bProcess(deps.pool, live.row.id, pid);
      return await tellEnd(stream, poll.status);
    }
    if (Date.now() >= deadlineMs) throw new RpcError('deadline_exceeded', 'the time for this call is over');
    if (Date.now() - toldMs >= keepaliveMs) {
      await stream.send({ event: { keepalive: {} } });
      toldMs = Date.now();
    }
  }
}

async function tell(stream: RpcStream, { stdout, stderr }: ExecPoll, kind: Followed['kind']): Promise<void> {
  const name = kind === 'pty' ? 'pty' : 'stdout';
  if (stdout.length > 0) await stream.send({ event: { data: { [name]: base64(stdout) } } });
  if (stderr.length > 0) await stream.send({ event: { data: { stderr: base64(stderr) } } });
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64');
}

/** As Go's process states read, which programs may look at. */
async function tellEnd(stream: RpcStream, status: Exclude<ExecState, { state: 'running' }>): Promise<void> {
  switch (status.state) {
    case 'exited': {
      const { exitCode, signal } = status;
      if (signal !== null) return stream.send(killed(signal.replace(/^SIG/, '').toLowerCase()));
      const text = `exit status ${exitCode}`;
      const error = exitCode === 0 ? {} : { error: text };
      return stream.send({ event: { end: { exitCode, exited: true, status: text, ...error } } });
    }
    case 'killed':
      if (status.reason === 'timeout') throw new RpcError('deadline_exceeded', 'the command ran into its time limit');
      return stream.send(killed(status.reason === 'signal' ? 'killed' : `killed (${status.reason})`));
    case 'lost':
      throw new RpcError('unavailable', 'the sandbox was paused or restarted while the command ran');
    case 'absent':
      throw new RpcError('not_found', 'the process was never started');
    default: {
      const never: never = status;
      throw new Error(`unknown state ${JSON.stringify(never)}`);
    }
  }
}

const NAMES: Record<string, string> = { kill: 'killed', term: 'terminated', int: 'interrupt', hup: 'hangup' };

function killed(name: string): object {
  const text = `signal: ${NAMES[name] ?? name}`;
  return { event: { end: { exitCode: -1, exited: false, status: text, error: text } } };
}
