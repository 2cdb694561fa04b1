import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { ProcessIdentity } from './processes.ts';

/** Every file of a local stack; `LONGHAUL_HOME` is the folder. */
export interface HomePaths {
  home: string;
  postgresData: string;
  postgresPassword: string;
  logs: string;
  sandboxes: string;
  apiKey: string;
  /** The egress broker's folder: certificate authority, trust bundle, token of its control interface. */
  egress: string;
  egressToken: string;
  vaultKey: string;
  devJson: string;
  stackState: string;
  lock: string;
}

/** The paths below a home. */
export function homePaths(home: string): HomePaths {
  return {
    home,
    postgresData: path.join(home, 'postgres'),
    postgresPassword: path.join(home, 'postgres-password'),
    logs: path.join(home, 'logs'),
    sandboxes: path.join(home, 'sandboxes'),
    apiKey: path.join(home, 'api-key'),
    egress: path.join(home, 'egress'),
    egressToken: path.join(home, 'egress', 'token'),
    vaultKey: path.join(home, 'vault-key'),
    devJson: path.join(home, 'dev.json'),
    stackState: path.join(home, 'stack.json'),
    lock: path.join(home, 'supervisor.lock'),
  };
}

/** Makes the folders of a home. */
export function prepareHome(paths: HomePaths): void {
  if (!existsSync(paths.home)) mkdirSync(paths.home, { recursive: true, mode: 0o700 });
  mkdirSync(paths.logs, { recursive: true, mode: 0o700 });
  mkdirSync(paths.sandboxes, { recursive: true, mode: 0o700 });
  mkdirSync(paths.egress, { recursive: true, mode: 0o700 });
  writeFileSync(path.join(paths.home, '.gitignore'), '*\n');
}

/** Replaces a file at once: a reader sees the old or the new content, and only its owner sees any. */
export function writePrivateFile(file: string, content: string): void {
  const temporary = `${file}.${process.pid}.tmp`;
  writeFileSync(temporary, content, { mode: 0o600 });
  chmodSync(temporary, 0o600);
  renameSync(temporary, file);
}

export type Role = 'supervisor' | 'api' | 'gateway' | 'worker' | 'egress' | 'temporal' | 'postgres';

/** What a running stack tells its users; the format is a stable handle. */
export interface DevJson {
  apiUrl: string;
  apiKey: string;
  gatewayUrl: string;
  /** The control interface of the egress broker. */
  egressUrl: string;
  temporalAddress: string;
  temporalNamespace: string;
  /** null when the address of a foreign server's UI was not given (TEMPORAL_UI_URL). */
  temporalUiUrl: string | null;
  databaseUrl: string;
  /** A role that shares a process repeats its pid; null for a server we did not start. */
  pids: Record<Role, number | null>;
}

export interface StackPorts {
  api?: number;
  egress?: number;
  ports?: number;
  temporal?: number;
  temporalUi?: number;
  postgres?: number;
}

/** Our own notes across runs: ports to ask for again and the processes a killed supervisor left behind. */
export interface StackState {
  ports: StackPorts;
  processes: Partial<Record<Role, ProcessIdentity>>;
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return null;
  }
}

/** The running stack's handle, or null when there is none. */
export function readDevJson(paths: HomePaths): DevJson | null {
  return readJson(paths.devJson) as DevJson | null;
}

/** Publishes the handle. */
export function writeDevJson(paths: HomePaths, value: DevJson): void {
  writePrivateFile(paths.devJson, `${JSON.stringify(value, null, 2)}\n`);
}

/** Takes the handle away: nothing runs any more. */
export function removeDevJson(paths: HomePaths): void {
  rmSync(paths.devJson, { force: true });
}

/** Notes of the last run; empty on the first. */
export function readStackState(paths: HomePaths): StackState {
  const state = readJson(paths.stackState) as Partial<StackState> | null;
  return { ports: state?.ports ?? {}, processes: state?.processes ?? {} };
}

/** Saves the notes. */
export function writeStackState(paths: HomePaths, state: StackState): void {
  writePrivateFile(paths.stackState, `${JSON.stringify(state, null, 2)}\n`);
}
