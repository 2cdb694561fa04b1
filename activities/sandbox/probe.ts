import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Logger } from '../../telemetry/logger.ts';
import type { SandboxProviderOptions } from './index.ts';
import { createSandboxProviders } from './index.ts';
import { CLEAN_ENV } from './local/host.ts';
import { syscallTable } from './local/kernel.ts';
import type { Obstacle } from './local/obstacles.ts';
import { forbiddenNamespaces, missingCapability, obstacleOf, oldKernel } from './local/obstacles.ts';
import type { LimitState, SandboxCapabilities, SandboxProvider } from './port.ts';

const PROBE_TIMEOUT_MS = 20_000;
const MIB = 1024 * 1024;

export interface ProbeCheck {
  name: string;
  ok: boolean;
  detail: string;
  /** What to do about it; absent when all is well. */
  fix?: string;
}

export interface SandboxProbe {
  ok: boolean;
  /** How sandboxes are kept apart here, in words. */
  mode: string;
  checks: ProbeCheck[];
}

/** Checks everything the local sandbox needs, the last check being a real sandbox that runs a command. */
export async function probeLocalSandbox(logger: Logger): Promise<SandboxProbe> {
  const checks = [checkPlatform(), checkArchitecture(), checkKernel(), checkPerl(), checkNamespaces()];
  if (!checks.every((check) => check.ok)) return { ok: false, mode: 'unavailable', checks };
  const rootDir = mkdtempSync(path.join(os.tmpdir(), 'longhaul-probe-'));
  try {
    const provider = createSandboxProviders({ rootDir, logger })['local'];
    if (provider === undefined) return { ok: false, mode: 'unavailable', checks };
    const { notes, limits } = await provider.capabilities();
    const run = await checkCommand(provider);
    const mode = run.ok ? notes.join(', ') : 'unavailable';
    return { ok: run.ok, mode, checks: [...checks, run, checkLimits(limits)] };
  } finally {
    rmSync(rootDir, { recursive: true, force: true });
  }
}

function unless(name: string, obstacle: Obstacle | null, detail: string): ProbeCheck {
  return obstacle === null ? { name, ok: true, detail } : { name, ok: false, ...obstacle };
}

function checkPlatform(): ProbeCheck {
  const isLinux = process.platform === 'linux';
  const fix = 'Run workers on Linux, or use environments of a remote provider.';
  return unless('platform', isLinux ? null : { detail: `${process.platform} has no namespaces`, fix }, 'Linux');
}

function checkArchitecture(): ProbeCheck {
  const fix = 'Use x64 or arm64.';
  const isKnown = syscallTable(process.arch) !== null;
  return unless(
    'architecture',
    isKnown ? null : { detail: `no system call table for ${process.arch}`, fix },
    process.arch,
  );
}

function checkKernel(): ProbeCheck {
  return unless('kernel', oldKernel(), os.release());
}

function checkPerl(): ProbeCheck {
  const { status } = spawnSync('perl', ['-e', 'exit 0'], { env: CLEAN_ENV, stdio: 'ignore' });
  const missing = { detail: 'perl is missing', fix: 'Install it: apt-get install perl-base.' };
  return unless('perl', status === 0 ? null : missing, 'perl runs');
}

function checkNamespaces(): ProbeCheck {
  return unless('user namespaces', forbiddenNamespaces() ?? missingCapability(), 'no setting forbids them');
}

async function checkCommand(provider: SandboxProvider): Promise<ProbeCheck> {
  const signal = AbortSignal.timeout(PROBE_TIMEOUT_MS);
  const limits = { memoryBytes: 256 * MIB, diskBytes: 64 * MIB, pids: 32, cpus: 1, ttlMs: 60_000 };
  const name = 'command';
  try {
    const ref = await provider.create({ owner: 'probe', labels: {}, env: {}, ...limits }, 'probe', signal);
    try {
      await provider.execStart(ref, { execId: 'probe', argv: ['true'], timeoutMs: 10_000 }, signal);
      const { status } = await provider.execPoll(ref, 'probe', { out: 0, err: 0 }, 10_000, signal);
      if (status.state === 'exited' && status.exitCode === 0) return { name, ok: true, detail: 'a command ran in one' };
      const detail = `a command in it ended as ${JSON.stringify(status)}`;
      return { name, ok: false, detail, fix: 'Look for messages of the kernel (dmesg).' };
    } finally {
      await provider.destroy(ref, signal);
    }
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    return { name, ok: false, detail, fix: obstacleOf(detail).fix };
  }
}

/** What each configured provider besides the local one says of itself; nothing is made there. */
export async function probeProviders(options: SandboxProviderOptions): Promise<ProbeCheck[]> {
  const providers = Object.values(createSandboxProviders(options)).filter(({ name }) => name !== 'local');
  return await Promise.all(
    providers.map(async (provider) => {
      const { name } = provider;
      try {
        return { name, ok: true, detail: describe(await provider.capabilities()) };
      } catch (error) {
        const detail = error instanceof Error ? error.message : String(error);
        return { name, ok: false, detail, fix: `Check the settings of ${name} in docs/reference/configuration.md.` };
      }
    }),
  );
}

function describe(can: SandboxCapabilities): string {
  const parts = [
    `isolation ${can.isolation}`,
    `way out ${can.egress === 'none' ? can.network : `${can.network} (egress ${can.egress})`}`,
    `pause ${can.pause}`,
    can.snapshot ? 'snapshots' : 'no snapshots',
    can.ports ? 'ports' : 'no ports',
    `limits ${checkLimits(can.limits).detail}`,
    ...can.notes,
  ];
  return parts.join('; ');
}

/** Missing limits are told, and are no reason to refuse. */
function checkLimits(limits: SandboxCapabilities['limits']): ProbeCheck {
  const kept = (wanted: LimitState): string =>
    Object.entries(limits)
      .flatMap(([limit, state]) => (state === wanted ? [limit] : []))
      .join(', ');
  const parts = { enforced: 'enforced', watched: 'watched', unavailable: 'not kept here' } as const;
  const states = Object.keys(parts) as LimitState[];
  const detail = states.flatMap((state) => (kept(state) === '' ? [] : [`${parts[state]}: ${kept(state)}`])).join('; ');
  return { name: 'limits', ok: true, detail };
}
