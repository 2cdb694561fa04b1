import { execFileSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import path from 'node:path';
import { readDaytonaConfig } from '../../activities/sandbox/daytona/config.ts';
import { readDockerOptions } from '../../activities/sandbox/docker/config.ts';
import { readE2bConfig } from '../../activities/sandbox/e2b/config.ts';
import { readKubernetesConfig } from '../../activities/sandbox/kubernetes/config.ts';
import { probeLocalSandbox, probeProviders } from '../../activities/sandbox/probe.ts';
import { createLogger } from '../../telemetry/logger.ts';
import type { CliConfig } from '../config.ts';
import { bareEnvironment, inheritedEnvironment } from '../config.ts';
import { EXIT, messageOf, print, printJson } from '../output.ts';
import { stackHealth } from '../stack/health.ts';
import { homePaths } from '../stack/home.ts';
import { isPortFree } from '../stack/ports.ts';
import { postgresProgram } from '../stack/postgres-package.ts';
import { DEFAULT_PORTS } from '../stack/stack-ports.ts';
import { installCommand, missingPrograms } from '../stack/system-packages.ts';
import { requireTemporal } from '../stack/temporal-binary.ts';

interface Check {
  name: string;
  ok: boolean;
  detail: string;
  /** What to do about it; absent when all is well. */
  fix?: string;
}

const OLDEST_NODE = [20, 19] as const;

function checkNode(): Check {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const ok = major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1]);
  const detail = `Node ${process.versions.node}`;
  return ok
    ? { name: 'node', ok, detail }
    : { name: 'node', ok, detail, fix: `Use Node ${OLDEST_NODE.join('.')} or newer.` };
}

function checkPrograms(): Check {
  const missing = missingPrograms();
  if (missing.length === 0) return { name: 'programs', ok: true, detail: 'all system programs are there' };
  const command = installCommand(missing);
  const fix =
    command === null ? `Install ${missing.join(', ')}.` : `Run \`longhaul setup\`, or: sudo ${command.join(' ')}`;
  return { name: 'programs', ok: false, detail: `missing: ${missing.join(', ')}`, fix };
}

function checkPostgres(config: CliConfig): Check {
  if (config.databaseUrl !== undefined) return { name: 'postgres', ok: true, detail: 'given by DATABASE_URL' };
  try {
    const version = execFileSync(postgresProgram(), ['--version'], { encoding: 'utf8', env: bareEnvironment() });
    return { name: 'postgres', ok: true, detail: version.trim() };
  } catch (error) {
    return { name: 'postgres', ok: false, detail: messageOf(error), fix: 'Run `npm ci`, then `longhaul setup`.' };
  }
}

async function checkTemporal(config: CliConfig): Promise<Check> {
  if (config.temporalAddress !== undefined) return { name: 'temporal', ok: true, detail: 'given by TEMPORAL_ADDRESS' };
  try {
    const { path: file, serverVersion, source } = await requireTemporal(config);
    return { name: 'temporal', ok: true, detail: `server ${serverVersion} from ${source}: ${file}` };
  } catch (error) {
    return { name: 'temporal', ok: false, detail: messageOf(error), fix: 'Run `longhaul setup`.' };
  }
}

async function checkSandbox(): Promise<Check> {
  const { mode, checks } = await probeLocalSandbox(createLogger('doctor', 'silent'));
  const failed = checks.find((check) => !check.ok);
  if (failed !== undefined) return { ...failed, name: 'sandbox', detail: `${failed.name}: ${failed.detail}` };
  return { name: 'sandbox', ok: true, detail: `commands run: ${mode}; limits: ${checks.at(-1)?.detail ?? ''}` };
}

/** One line for each sandbox provider that is configured. */
async function checkProviders(config: CliConfig): Promise<Check[]> {
  const env = inheritedEnvironment();
  try {
    const options = {
      daytona: readDaytonaConfig(env),
      docker: readDockerOptions(env),
      e2b: readE2bConfig(env),
      kubernetes: readKubernetesConfig(env),
    };
    const rootDir = path.join(config.home, 'sandboxes');
    return await probeProviders({ rootDir, logger: createLogger('doctor', 'silent'), ...options });
  } catch (error) {
    return [{ name: 'providers', ok: false, detail: messageOf(error), fix: 'Correct the variable it names.' }];
  }
}

function checkHome(config: CliConfig): Check {
  let folder = config.home;
  while (!existsSync(folder)) folder = path.dirname(folder);
  try {
    accessSync(folder, constants.W_OK);
    return { name: 'home', ok: true, detail: config.home };
  } catch {
    const fix = 'Set LONGHAUL_HOME to a folder you may write to.';
    return { name: 'home', ok: false, detail: `${folder} is not writable`, fix };
  }
}

async function checkStack(config: CliConfig): Promise<Check> {
  const { state, roles, apiReady } = await stackHealth(homePaths(config.home));
  switch (state) {
    case 'stopped':
      return { name: 'stack', ok: true, detail: 'not running' };
    case 'running':
      return { name: 'stack', ok: true, detail: 'running and ready' };
    case 'starting':
      return { name: 'stack', ok: true, detail: 'starting' };
    case 'degraded': {
      const gone = Object.entries(roles).filter(([, role]) => !role.alive);
      const detail =
        gone.length === 0
          ? `${apiReady ? 'the egress broker' : 'the api'} is not ready`
          : `not alive: ${gone.map(([role]) => role).join(', ')}`;
      return {
        name: 'stack',
        ok: false,
        detail,
        fix: `Read ${path.join(config.home, 'logs')}; restart it with \`longhaul stop\` and \`longhaul dev\`.`,
      };
    }
    case 'orphaned':
      return {
        name: 'stack',
        ok: false,
        detail: 'its supervisor was killed, some of its processes still run',
        fix: 'Run `longhaul dev` to start anew, or `longhaul stop` to end them.',
      };
  }
}

/** Taken ports are no problem (the next free ones are used), but people look here when an address surprises them. */
async function checkPorts(): Promise<Check> {
  const entries = await Promise.all(
    Object.entries(DEFAULT_PORTS).map(async ([name, port]) => ({ name, port, free: await isPortFree(port) })),
  );
  const taken = entries.filter(({ free }) => !free).map(({ name, port }) => `${name} ${port}`);
  const detail =
    taken.length === 0 ? 'all default ports are free' : `in use, the next free ones are taken: ${taken.join(', ')}`;
  return { name: 'ports', ok: true, detail };
}

/** Checks every prerequisite; the exit code is 0 only when all are met. */
export async function doctor(config: CliConfig, options: { json: boolean }): Promise<number> {
  const checks = [
    checkNode(),
    checkPrograms(),
    checkPostgres(config),
    await checkTemporal(config),
    await checkSandbox(),
    ...(await checkProviders(config)),
    checkHome(config),
    await checkPorts(),
    await checkStack(config),
  ];
  const ok = checks.every((check) => check.ok);
  if (options.json) {
    printJson({ ok, checks });
  } else {
    for (const check of checks) {
      print(`${check.ok ? 'ok  ' : 'FAIL'}  ${check.name.padEnd(9)} ${check.detail}`);
      if (check.fix !== undefined) print(`      ${' '.repeat(9)} → ${check.fix}`);
    }
  }
  return ok ? EXIT.ok : EXIT.failed;
}
