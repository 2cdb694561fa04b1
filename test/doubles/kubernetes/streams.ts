import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import type { SandboxProvider, SandboxRef } from '../../../activities/sandbox/port.ts';
import type { ServerSocket } from './web-socket.ts';

const CHANNEL = { stdin: 0, stdout: 1, stderr: 2, status: 3, close: 255 } as const;
const PIECE_BYTES = 64 * 1024;

function framed(channel: number, payload: Buffer): Buffer {
  return Buffer.concat([Buffer.from([channel]), payload]);
}

/** Sends a stream on a channel, no faster than the client takes it. */
async function forward(socket: ServerSocket, channel: number, source: AsyncIterable<Buffer>): Promise<void> {
  for await (const chunk of source) {
    for (let from = 0; from < chunk.length; from += PIECE_BYTES) {
      if (!socket.send(framed(channel, chunk.subarray(from, from + PIECE_BYTES)))) await socket.drained();
    }
  }
}

/** `v5.channel.k8s.io`: the first byte of each message names its stream, 255 closes one, 3 is the Status at the end. */
export async function serveExec(socket: ServerSocket, command: string[], hasInput: boolean): Promise<void> {
  const [file = '', ...args] = command;
  const child: ChildProcessWithoutNullStreams = spawn(file, args, {
    env: { PATH: '/usr/bin:/bin' },
    cwd: '/',
    stdio: 'pipe',
  });
  child.stdin.on('error', () => undefined);
  if (!hasInput) child.stdin.end();
  socket.on('message', (message) => {
    if (message[0] === CHANNEL.stdin) child.stdin.write(message.subarray(1));
    if (message[0] === CHANNEL.close && message[1] === CHANNEL.stdin) child.stdin.end();
  });
  // As a container runtime: whoever leaves closes the input, the command itself goes on.
  socket.on('close', () => child.stdin.end());
  const ended = new Promise<number>((resolve) => {
    child.once('error', () => resolve(127));
    child.once('exit', (code) => resolve(code ?? 137));
  });
  await Promise.all([forward(socket, CHANNEL.stdout, child.stdout), forward(socket, CHANNEL.stderr, child.stderr)]);
  const code = await ended;
  const failure = {
    metadata: {},
    status: 'Failure',
    reason: 'NonZeroExitCode',
    message: `command terminated with non-zero exit code: ${code}`,
    details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
  };
  const status = code === 0 ? { metadata: {}, status: 'Success' } : failure;
  socket.send(framed(CHANNEL.status, Buffer.from(JSON.stringify(status))));
  socket.close();
}

/** Two channels a port, data and errors, each beginning with the number of the port. */
export async function servePort(
  socket: ServerSocket,
  backing: SandboxProvider,
  ref: SandboxRef,
  port: number,
): Promise<void> {
  const number = Buffer.alloc(2);
  number.writeUInt16LE(port);
  const early: Buffer[] = [];
  let take = (data: Buffer): void => void early.push(data);
  socket.on('message', (message) => {
    if (message[0] === 0 && message.length > 1) take(message.subarray(1));
  });
  for (const channel of [0, 1]) socket.send(framed(channel, number));
  try {
    const target = await backing.openPort(ref, port, AbortSignal.timeout(60_000));
    if (target.type !== 'stream') throw new Error('not a stream');
    const inside = await target.connect();
    take = (data) => void inside.write(data);
    for (const data of early) take(data);
    socket.on('close', () => inside.destroy());
    await forward(socket, 0, inside as AsyncIterable<Buffer>);
  } catch (error) {
    socket.send(framed(1, Buffer.from(String(error))));
  }
  socket.close();
}
