import { RpcError } from './connect.ts';
import { HOME, resolvePath } from './paths.ts';

interface TerminalSize {
  cols: number;
  rows: number;
}

interface AskedProcess {
  process: { cmd: string; args: string[]; envs: Record<string, string>; cwd?: string | undefined };
  pty?: { size: TerminalSize } | undefined;
}

interface Command {
  argv: string[];
  cwd: string;
  env: Record<string, string>;
}

/** Where a terminal's command leaves its name, for `stty` to find it. */
const ttyFile = (pid: number): string => `/tmp/.e2b-tty-${pid}`;

/** Runs on the terminal, then becomes the command. */
const ON_TERMINAL = 'tty > "$1"; stty cols "$2" rows "$3"; shift 3; exec "$@"';

/** The command with the environment E2B gives its users. `script` makes the terminal where one is wanted. */
export function commandOf(asked: AskedProcess, user: string, pid: number): Command {
  const { cmd, args, envs } = asked.process;
  const cwd = resolvePath(asked.process.cwd);
  const env = { HOME, PWD: cwd, USER: user, LOGNAME: user, ...envs };
  if (asked.pty === undefined) return { argv: [cmd, ...args], cwd, env };
  const { cols, rows } = asked.pty.size;
  const words = ['sh', '-c', ON_TERMINAL, 'pty', ttyFile(pid), String(cols), String(rows), cmd, ...args];
  return { argv: ['script', '-q', '-f', '-e', '-c', words.map(quote).join(' '), '/dev/null'], cwd, env };
}

/** Tells the terminal's kernel side, which tells the programs. */
export function resizeCommand(pid: number, { cols, rows }: TerminalSize): string[] {
  const script = 'stty -F "$(cat "$1")" cols "$2" rows "$3"';
  return ['sh', '-c', script, 'resize', ttyFile(pid), String(cols), String(rows)];
}

function quote(word: string): string {
  if (word.includes('\0')) throw new RpcError('invalid_argument', 'arguments must not contain NUL');
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
