import { readFileSync } from 'node:fs';
import os from 'node:os';

/** Why something the sandbox needs is not to be had here, and what to do about it. */
export interface Obstacle {
  detail: string;
  fix: string;
}

/** Process limits are counted per user namespace since this version; the other calls are older. */
const OLDEST_KERNEL = [5, 14] as const;

/** null when the kernel is new enough. */
export function oldKernel(release: string = os.release()): Obstacle | null {
  const [major = 0, minor = 0] = release.split(/[.-]/).map(Number);
  const [wantedMajor, wantedMinor] = OLDEST_KERNEL;
  if (major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)) return null;
  return { detail: `Linux ${release} is too old`, fix: `Use Linux ${OLDEST_KERNEL.join('.')} or newer.` };
}

/** A setting of the kernel that forbids user namespaces; null when none does (a container's filter shows in none). */
export function forbiddenNamespaces(read: (file: string) => string = readSetting): Obstacle | null {
  const isRoot = process.getuid?.() === 0;
  if (read('/proc/sys/user/max_user_namespaces') === '0') {
    return {
      detail: 'user namespaces are switched off (user.max_user_namespaces is 0)',
      fix: 'Run: sudo sysctl -w user.max_user_namespaces=15000 (and put it into /etc/sysctl.d).',
    };
  }
  if (read('/proc/sys/kernel/unprivileged_userns_clone') === '0') {
    return {
      detail: 'user namespaces are for root only (kernel.unprivileged_userns_clone is 0)',
      fix: 'Run: sudo sysctl -w kernel.unprivileged_userns_clone=1 (and put it into /etc/sysctl.d).',
    };
  }
  if (read('/proc/sys/kernel/apparmor_restrict_unprivileged_userns') === '1') {
    return {
      detail: 'AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)',
      fix: `Run: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give /usr/bin/perl a profile that allows userns.${
        isRoot ? ' Commands of a root worker run as users of their own, so this holds for root too.' : ''
      }`,
    };
  }
  return null;
}

/** CAP_SYS_PTRACE: its number is also that of its bit. */
const TRACE_CAPABILITY = 19n;

/** Root gives each sandbox a user of its own, and without this capability may not look after another user's processes. */
export function missingCapability(status: string = readSetting('/proc/self/status')): Obstacle | null {
  const [, uid, capabilities] = /^Uid:\s+\d+\s+(\d+)[^]*^CapEff:\s+([0-9a-f]+)$/m.exec(status) ?? [];
  if (uid !== '0' || capabilities === undefined) return null;
  if (((BigInt(`0x${capabilities}`) >> TRACE_CAPABILITY) & 1n) === 1n) return null;
  return {
    detail: 'the worker is root without the capability SYS_PTRACE',
    fix: 'Run the worker as an ordinary user, or start its container with --cap-add SYS_PTRACE.',
  };
}

function readSetting(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}

/** What most likely kept a sandbox from starting, from what it said. */
export function obstacleOf(complaint: string): Obstacle {
  const known = oldKernel() ?? (/\bunshare:/.test(complaint) ? forbiddenNamespaces() : null);
  if (known !== null) return known;
  if (/\b(unshare|mount|pivot_root|mount_setattr|umount2):|uid_map/.test(complaint)) {
    return {
      detail: 'this machine does not let the sandbox make its namespaces and mounts',
      fix: 'In a container, start it with: --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined.',
    };
  }
  return { detail: 'the sandbox did not start', fix: 'See the message of the sandbox.' };
}
