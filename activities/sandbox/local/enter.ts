import { existsSync, lstatSync, readdirSync, readlinkSync } from 'node:fs';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { syscallTable } from './kernel.ts';
import type { Scripts } from './scripts.ts';
import { scriptsFor } from './scripts.ts';

/** What of the host a sandbox sees, read-only. None of it holds a secret. */
const SHOWN = [
  '/usr',
  '/bin',
  '/sbin',
  '/lib',
  '/lib32',
  '/lib64',
  '/libx32',
  '/etc/alternatives',
  '/etc/ssl/certs',
  '/etc/ca-certificates',
  '/etc/ld.so.cache',
  '/etc/ld.so.conf',
  '/etc/ld.so.conf.d',
  '/etc/localtime',
  '/etc/mime.types',
];

const ETC_FILES: Record<string, string> = {
  passwd: 'root:x:0:0:sandbox:/workspace:/bin/bash\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n',
  group: 'root:x:0:\nnogroup:x:65534:\n',
  hosts: '127.0.0.1 localhost sandbox\n::1 localhost\n',
  'nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files\n',
  'resolv.conf': '',
};

/** Environment of every command; its own variables come on top. */
export const BASE_ENV = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  HOME: '/workspace',
  LANG: 'C.UTF-8',
  TERM: 'dumb',
  USER: 'root',
};

/** Where sandboxes see the installed harnesses. */
export const HARNESSES_INSIDE = '/opt/longhaul/harness';

/** Shows the folder of installed harnesses; `isRoot`: sandboxes have users of their own, who could not walk to it. */
export function harnessesArgument(harnessDir: string | undefined, isRoot: boolean): string | undefined {
  if (harnessDir === undefined || !existsSync(harnessDir)) return undefined;
  return `${isRoot ? 'tree' : 'bind'}:${HARNESSES_INSIDE}=${harnessDir}`;
}

/** Where programs look for the authorities they trust. */
const TRUST = '/etc/ssl/certs/ca-certificates.crt';

/**
 * Arguments that describe a root file system: that of the machine, or of a folder made for it. `trustFile` is bound over
 * the system's bundle.
 */
export function rootArguments(
  options: { rootfs?: string; trustFile?: string; harnesses?: string | undefined } = {},
): string[] {
  const { rootfs, harnesses } = options;
  const args = rootfs === undefined ? machineArguments() : folderArguments(rootfs);
  if (harnesses !== undefined) args.push(harnesses);
  if (options.trustFile === undefined) return args;
  if (existsSync(`${options.rootfs ?? ''}${TRUST}`)) return [...args, `bind:${TRUST}=${options.trustFile}`];
  if (options.rootfs !== undefined) {
    throw new LonghaulError('sandbox_invalid', `has no ${TRUST}`, { field: 'image' });
  }
  // The folder is the machine's and cannot be given another file: one with this file alone takes its place.
  return [...args.filter((each) => each !== 'bind:/etc/ssl/certs'), `bind:${TRUST}=${options.trustFile}`];
}

function machineArguments(): string[] {
  const args: string[] = [];
  for (const path of SHOWN) {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats === undefined) continue;
    args.push(stats.isSymbolicLink() ? `link:${path}=${readlinkSync(path)}` : `bind:${path}`);
  }
  for (const [name, text] of Object.entries(ETC_FILES)) args.push(`file:/etc/${name}=${text}`);
  // Where programs written for E2B have their files.
  args.push('link:/home/user=/workspace');
  return args;
}

/** Made by the sandbox itself. */
const OWN = new Set(['dev', 'proc', 'sys', 'run', 'tmp', 'mnt', 'workspace', 'lost+found']);

function folderArguments(rootfs: string): string[] {
  return readdirSync(rootfs, { withFileTypes: true }).flatMap((entry) => {
    const path = `/${entry.name}`;
    if (OWN.has(entry.name)) return [];
    if (entry.isSymbolicLink()) return [`link:${path}=${readlinkSync(`${rootfs}${path}`)}`];
    return entry.isDirectory() ? [`bind:${path}=${rootfs}${path}`] : [];
  });
}

let scripts: Scripts | undefined;

/** The programs of this folder for this machine's architecture. */
export function hostScripts(): Scripts {
  if (scripts !== undefined) return scripts;
  const table = syscallTable(process.arch);
  if (table === null) throw new LonghaulError('sandbox_unavailable', `no system call table for ${process.arch}`);
  scripts = scriptsFor(table);
  return scripts;
}
