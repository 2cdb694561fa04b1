import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import http from 'node:http';
import path from 'node:path';
import { finished } from 'node:stream/promises';
import type { Duplex } from 'node:stream';
import { Busboy } from '@fastify/busboy';
import type { SandboxProvider, SandboxRef } from '../../../activities/sandbox/port.ts';
import { LonghaulError } from '../../../contracts/error-codes.ts';

const BOUNDARY = 'DAYTONA-FILE-BOUNDARY';
const LARGEST_FILE_BYTES = 512 * 1024 * 1024;
const signal = (): AbortSignal => AbortSignal.timeout(600_000);

/** Error of the daemon inside, as the SDK reads it. */
export class DaemonError extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The daemon takes a line apart at blanks and quotes; no shell sees it. */
function words(line: string): string[] {
  const found: string[] = [];
  let word = '';
  let quote = '';
  for (const character of line) {
    if (quote === '' && (character === '"' || character === "'")) quote = character;
    else if (character === quote) quote = '';
    else if (character === ' ' && quote === '') {
      if (word !== '') found.push(word);
      word = '';
    } else word += character;
  }
  return word === '' ? found : [...found, word];
}

interface ExecuteRequest {
  command?: string;
  cwd?: string;
  envs?: Record<string, string>;
  timeout?: number;
}

/** Both streams merged, as text, when every process that holds them has ended. */
export async function execute(
  backing: SandboxProvider,
  ref: SandboxRef,
  request: ExecuteRequest,
): Promise<{ exitCode: number; result: string }> {
  const parts = words(request.command ?? '');
  if (parts.length === 0) throw new DaemonError(400, 'BAD_REQUEST', 'empty command');
  const execId = randomUUID();
  const argv = ['bash', '-c', '"$@" 2>&1 | cat; exit ${PIPESTATUS[0]}', 'execute', ...parts];
  const spec = {
    execId,
    argv,
    cwd: request.cwd ?? '/workspace',
    env: request.envs ?? {},
    timeoutMs: (request.timeout ?? 360) * 1_000,
  };
  await backing.execStart(ref, spec, signal());
  const pieces: Uint8Array[] = [];
  let from = { out: 0, err: 0 };
  for (;;) {
    const { status, stdout, next } = await backing.execPoll(ref, execId, from, 5_000, signal());
    pieces.push(stdout);
    from = next;
    if (status.state === 'running' || stdout.length > 0) continue;
    if (status.state === 'killed' && status.reason === 'timeout') {
      throw new DaemonError(408, 'PROCESS_EXECUTION_TIMEOUT', 'command execution timeout');
    }
    const result = Buffer.concat(pieces).toString();
    return { exitCode: status.state === 'exited' ? status.exitCode : -1, result };
  }
}

/** Takes `files[0].path` and `files[0].file` pairs apart and writes the files. */
export async function bulkUpload(backing: SandboxProvider, ref: SandboxRef, request: IncomingMessage): Promise<void> {
  const headers = { ...request.headers, 'content-type': request.headers['content-type'] ?? '' };
  const parser = new Busboy({ headers, preservePath: true, limits: { fileSize: LARGEST_FILE_BYTES } });
  const paths = new Map<string, string>();
  const writes: Promise<unknown>[] = [];
  parser.on('field', (name, value) => paths.set(name.replace(/\.path$/, ''), value));
  parser.on('file', (name, stream) => {
    const target = paths.get(name.replace(/\.file$/, ''));
    if (target === undefined) stream.resume();
    else writes.push(write(backing, ref, target, stream));
  });
  request.once('aborted', () => parser.destroy(new Error('aborted')));
  request.pipe(parser);
  try {
    await finished(parser);
  } finally {
    await Promise.allSettled(writes);
  }
  await Promise.all(writes);
}

async function write(
  backing: SandboxProvider,
  ref: SandboxRef,
  target: string,
  stream: AsyncIterable<Uint8Array>,
): Promise<void> {
  const pieces: Uint8Array[] = [];
  for await (const piece of stream) pieces.push(piece);
  await backing.writeFile(ref, target, Buffer.concat(pieces), signal());
}

/** One part a file; what cannot be read is a part named `error`. */
export async function bulkDownload(
  backing: SandboxProvider,
  ref: SandboxRef,
  paths: string[],
  response: ServerResponse,
  cutAfterBytes: number | undefined,
): Promise<void> {
  response.writeHead(200, { 'content-type': `multipart/form-data; boundary=${BOUNDARY}` });
  for (const each of paths) {
    const head = (name: string, type: string): string =>
      `--${BOUNDARY}\r\nContent-Disposition: form-data; name="${name}"; filename="${each}"\r\nContent-Type: ${type}\r\n`;
    try {
      const stat = await backing.stat(ref, each, signal());
      if (stat?.type !== 'file') throw new DaemonError(404, 'FILE_NOT_FOUND', `file not found or invalid: ${each}`);
      response.write(`${head('file', 'application/octet-stream')}Content-Length: ${stat.sizeBytes}\r\n\r\n`);
      const content = await backing.readFile(ref, each, LARGEST_FILE_BYTES, signal());
      if (cutAfterBytes !== undefined) {
        response.write(content.subarray(0, cutAfterBytes), () => response.destroy());
        return;
      }
      response.write(content);
      response.write('\r\n');
    } catch (error) {
      const [status, code] = error instanceof DaemonError ? [error.status, error.code] : [500, 'FILE_READ_FAILED'];
      const message = error instanceof Error ? error.message : String(error);
      const body = JSON.stringify({ statusCode: status, code, message, source: 'DAYTONA_DAEMON' });
      response.write(`${head('error', 'application/json')}\r\n${body}\r\n`);
    }
  }
  response.end(`--${BOUNDARY}--\r\n`);
}

/** The folder of a file of the daemon. */
export async function removeFile(
  backing: SandboxProvider,
  ref: SandboxRef,
  target: string,
  recursive: boolean,
): Promise<void> {
  const stat = await backing.stat(ref, path.posix.normalize(target), signal());
  if (stat === null) throw new DaemonError(404, 'FILE_NOT_FOUND', `no such file: ${target}`);
  if (stat.type === 'directory' && !recursive) throw new DaemonError(400, 'BAD_REQUEST', 'cannot delete directory');
  await backing.remove(ref, target, signal());
}

/** Hands a request on to a program of the sandbox. */
export async function preview(
  backing: SandboxProvider,
  ref: SandboxRef,
  port: number,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const target = await backing.openPort(ref, port, signal());
  if (target.type !== 'stream') throw new LonghaulError('sandbox_unsupported', 'the local sandbox gives streams');
  const socket: Duplex = await target.connect();
  const { method, headers, url } = request;
  const passed = http.request({ method, headers, path: url, createConnection: () => socket }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(response);
  });
  passed.on('error', () => response.destroy());
  request.pipe(passed);
}
