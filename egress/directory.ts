import type { Pool } from '../db/pool.ts';
import { findEgressPoint, listEgressPoints, type EgressPointRow } from '../db/queries/egress-points.ts';
import type { KnownSandbox, SandboxDirectory } from './broker.ts';
import { egressPoint } from './control.ts';

const SANDBOXES_MAX = 10_000;

/** The sandboxes as Postgres has them. */
export function databaseDirectory(pool: Pool): SandboxDirectory {
  return {
    list: async () => (await listEgressPoints(pool, SANDBOXES_MAX)).flatMap(known),
    find: async (sandboxId) => {
      const row = await findEgressPoint(pool, sandboxId);
      return row === undefined ? null : (known(row)[0] ?? null);
    },
  };
}

/** A point nobody understands is none: its sandbox has no way out. */
function known({ sandboxId, sessionId, point }: EgressPointRow): KnownSandbox[] {
  if (point === null) return [{ sandboxId, sessionId, point: null }];
  const parsed = egressPoint.safeParse(point);
  return parsed.success ? [{ sandboxId, sessionId, point: parsed.data }] : [];
}
