import { readDevJson, readStackState, type DevJson, type HomePaths, type Role } from './home.ts';
import { lockHolder } from './lock.ts';
import { isAlive } from './processes.ts';

export interface StackHealth {
  /** `degraded`: the supervisor lives, something else does not answer. `orphaned`: only its children live. */
  state: 'stopped' | 'starting' | 'running' | 'degraded' | 'orphaned';
  roles: Partial<Record<Role, { pid: number; alive: boolean }>>;
  apiReady: boolean;
  egressReady: boolean;
  devJson: DevJson | null;
}

async function answers(url: string): Promise<boolean> {
  try {
    return (await fetch(url, { signal: AbortSignal.timeout(3_000) })).status === 200;
  } catch {
    return false;
  }
}

/** Looks at the stack of a home from outside. */
export async function stackHealth(paths: HomePaths): Promise<StackHealth> {
  const supervisor = lockHolder(paths.lock);
  const devJson = readDevJson(paths);
  const roles: StackHealth['roles'] = {};
  for (const [role, identity] of Object.entries(readStackState(paths).processes)) {
    roles[role as Role] = { pid: identity.pid, alive: isAlive(identity) };
  }
  const living = Object.values(roles).filter((role) => role.alive).length;
  const unready = { apiReady: false, egressReady: false };
  if (supervisor === null) return { state: living > 0 ? 'orphaned' : 'stopped', roles, ...unready, devJson: null };
  if (devJson === null) return { state: 'starting', roles, ...unready, devJson };
  const [apiReady, egressReady] = await Promise.all([
    answers(`${devJson.apiUrl}/readyz`),
    answers(`${devJson.egressUrl}/healthz`),
  ]);
  const well = apiReady && egressReady && living === Object.keys(roles).length;
  return { state: well ? 'running' : 'degraded', roles, apiReady, egressReady, devJson };
}
