import type { SessionSandbox } from '../../contracts/sandboxes.ts';
import type { SandboxRow } from '../../db/queries/sandboxes.ts';
import { isoOrNull } from './times.ts';

export function renderSandbox(row: SandboxRow | undefined): SessionSandbox | null {
  if (row === undefined) return null;
  return {
    id: row.id,
    provider: row.provider,
    state: stateOf(row),
    controls: row.controls,
    snapshot_at: isoOrNull(row.snapshotAt),
    failure: row.failure === null ? null : { step: row.failure.step, message: row.failure.message },
    created_at: row.createdAt.toISOString(),
  };
}

function stateOf(row: SandboxRow): SessionSandbox['state'] {
  if (row.failure !== null) return 'failed';
  switch (row.state) {
    case 'destroyed':
    case 'lost':
      return 'released';
    case 'paused':
      return 'paused';
    case 'creating':
    case 'running':
      if (row.ref === null) return 'creating';
      return row.preparedAt === null ? 'preparing' : 'running';
  }
}
