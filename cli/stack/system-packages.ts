import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { inheritedEnvironment } from '../config.ts';

/** Programs the stack runs, with the package that holds each, by package manager. */
const PROGRAMS = [
  { program: 'setpriv', packages: { apt: 'util-linux', dnf: 'util-linux', pacman: 'util-linux', apk: 'setpriv' } },
  { program: 'perl', packages: { apt: 'perl-base', dnf: 'perl-interpreter', pacman: 'perl', apk: 'perl' } },
] as const;

const MANAGERS = [
  { name: 'apt', program: 'apt-get', install: ['apt-get', 'install', '-y', '--no-install-recommends'] },
  { name: 'dnf', program: 'dnf', install: ['dnf', 'install', '-y'] },
  { name: 'pacman', program: 'pacman', install: ['pacman', '-S', '--noconfirm', '--needed'] },
  { name: 'apk', program: 'apk', install: ['apk', 'add'] },
] as const;

/** True when a program is on PATH, or where Debian keeps those of administrators. */
export function hasProgram(name: string): boolean {
  const folders = [...(inheritedEnvironment()['PATH'] ?? '').split(path.delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => {
    try {
      accessSync(path.join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Names of the needed programs that are not there; only Linux needs any. */
export function missingPrograms(): string[] {
  if (process.platform !== 'linux') return [];
  return PROGRAMS.filter(({ program }) => !hasProgram(program)).map(({ program }) => program);
}

/** The one command that installs them; null when no known package manager is here. */
export function installCommand(programs: string[]): string[] | null {
  const manager = MANAGERS.find(({ program }) => hasProgram(program));
  if (manager === undefined) return null;
  const wanted = PROGRAMS.filter(({ program }) => programs.includes(program));
  return [...manager.install, ...new Set(wanted.map(({ packages }) => packages[manager.name]))];
}

function canElevate(): boolean {
  if (process.getuid?.() === 0) return true;
  return hasProgram('sudo') && spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0;
}

/** Installs the packages when we may do so without asking; false when we may not or it failed. */
export function installPackages(command: string[], say: (line: string) => void): boolean {
  if (!canElevate()) return false;
  const run = (argv: readonly string[]): boolean => {
    const full = process.getuid?.() === 0 ? [...argv] : ['sudo', '-n', ...argv];
    say(`running: ${full.join(' ')}`);
    const [program = '', ...args] = full;
    // Their output is talk: it goes to stderr with ours.
    const result = spawnSync(program, args, {
      stdio: ['ignore', 2, 2],
      env: { ...inheritedEnvironment(), DEBIAN_FRONTEND: 'noninteractive' },
    });
    return result.status === 0;
  };
  if (run(command)) return true;
  // A fresh image has no package lists at all.
  return command[0] === 'apt-get' && run(['apt-get', 'update']) && run(command);
}
