import { spawn, spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import os from 'node:os';
import { LonghaulError } from '../../../contracts/error-codes.ts';

/** The environment of every process the provider starts: nothing of the worker's own gets near a sandbox. */
export const CLEAN_ENV = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };

export interface CommandResult {
  code: number;
  stdout: Buffer;
  stderr: Buffer;
}

interface CommandOptions {
  input?: Uint8Array;
  /** Bytes of standard output kept; the command is killed beyond. */
  maxBytes: number;
  timeoutMs: number;
  signal: AbortSignal;
}

/** The one program of the host the provider starts could not be. */
export function perlMissing(cause: Error): LonghaulError {
  return new LonghaulError('sandbox_unavailable', 'perl could not be started: install it (package perl-base)', {
    cause,
  });
}

/** 9 → SIGKILL. */
export function signalName(number: number): string {
  const known = Object.entries(os.constants.signals).find(([, value]) => value === number);
  return known?.[0] ?? `SIG${number}`;
}

/** Runs a short host command to its end, bounded in time and output. */
export async function run(argv: string[], options: CommandOptions): Promise<CommandResult> {
  const [file = '', ...args] = argv;
  const child = spawn(file, args, {
    env: CLEAN_ENV,
    cwd: '/',
    stdio: ['pipe', 'pipe', 'pipe'],
    signal: options.signal,
    killSignal: 'SIGKILL',
    timeout: options.timeoutMs,
  });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  let sizeBytes = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    sizeBytes += chunk.length;
    if (sizeBytes > options.maxBytes) child.kill('SIGKILL');
    else out.push(chunk);
  });
  child.stderr.on('data', (chunk: Buffer) => {
    if (err.length < 64) err.push(chunk);
  });
  // The command may end without reading its input: that is told by its exit code.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input);
  return new Promise((resolve, reject) => {
    child.once('error', (error) => {
      reject(error.name === 'AbortError' ? error : perlMissing(error));
    });
    child.once('close', (code) => {
      resolve({ code: code ?? 137, stdout: Buffer.concat(out), stderr: Buffer.concat(err) });
    });
  });
}

/** The kernel's start time of a process: with the pid it names one process for ever. Undefined: gone, or a zombie. */
export function startTimeOf(pid: number): string | undefined {
  if (process.platform === 'darwin') return startTimeOnMacos(pid);
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

function startTimeOnMacos(pid: number): string | undefined {
  const { stdout } = spawnSync('ps', ['-o', 'lstart=', '-p', String(pid)], { env: CLEAN_ENV });
  const text = String(stdout).trim().replaceAll(/\s+/g, '_');
  return text === '' ? undefined : text;
}

export interface ProcessIdentity {
  pid: number;
  startTime: string;
}

export function isAlive(identity: ProcessIdentity): boolean {
  return startTimeOf(identity.pid) === identity.startTime;
}

/** Kills exactly this process; false when it was gone. */
export function killProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(identity)) return false;
  try {
    process.kill(identity.pid, signal);
    return true;
  } catch {
    return false;
  }
}

const HOLDER_LINE = /^longhaul-sandbox ([0-9a-f]{32})$/;

/** Markers of all sandboxes that run on this machine. */
export function runningMarkers(): Set<string> {
  const lines = readdirSync('/proc').map((name) => (/^\d+$/.test(name) ? commandLine(name) : ''));
  return new Set(lines.flatMap((line) => HOLDER_LINE.exec(line)?.[1] ?? []));
}

/** Holders and supervisors that carry this marker, by their command lines. */
export function processesNamed(marker: string): { identity: ProcessIdentity; isHolder: boolean }[] {
  const holder = `longhaul-sandbox ${marker}`;
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    const line = commandLine(name);
    if (line !== holder && line !== `longhaul-exec ${marker}`) return [];
    const startTime = startTimeOf(Number(name));
    return startTime === undefined ? [] : [{ identity: { pid: Number(name), startTime }, isHolder: line === holder }];
  });
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replace(/\0+$/, '').trim();
  } catch {
    return '';
  }
}
