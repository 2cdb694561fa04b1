import { LIMITS } from '../../contracts/limits.ts';
import { renewSandbox } from '../../db/queries/sandboxes.ts';
import type { ActivityDeps } from '../deps.ts';
import type { Lease } from './lease.ts';

const RENEW_MS = LIMITS.sandboxLeaseMs / 3;
const CALL_MS = 15_000;

/** Keeps the lease of a sandbox while `work` goes on in it: a command or a preparation may take longer than a lease. */
export async function whileRenewed<T>(
  deps: Pick<ActivityDeps, 'pool' | 'logger'>,
  lease: Pick<Lease, 'id' | 'ref' | 'provider'>,
  work: () => Promise<T>,
  everyMs: number = RENEW_MS,
): Promise<T> {
  const timer = setInterval(() => void renew(deps, lease), everyMs);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

/** What fails here is tried again by the next one, well before the lease ends. */
async function renew(
  { pool, logger }: Pick<ActivityDeps, 'pool' | 'logger'>,
  { id, ref, provider }: Pick<Lease, 'id' | 'ref' | 'provider'>,
): Promise<void> {
  try {
    if (!(await renewSandbox(pool, id, LIMITS.sandboxLeaseMs))) return;
    await provider.extend(ref, LIMITS.sandboxLeaseMs, AbortSignal.timeout(CALL_MS));
  } catch (error) {
    logger.warn({ sandboxId: id, err: error }, 'the lease of a sandbox could not be renewed');
  }
}
