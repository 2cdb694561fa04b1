import { portOrigin } from '../../contracts/port-links.ts';
import type { SessionPortResource } from '../../contracts/session-ports.ts';
import type { SessionPortRow } from '../../db/queries/session-ports.ts';

export function renderSessionPort(row: SessionPortRow, portsUrl: string): SessionPortResource {
  return {
    id: row.id,
    type: 'session_port',
    session_id: row.sessionId,
    port: row.port,
    origin: portOrigin(portsUrl, row.id),
    created_by: row.createdBy,
    created_at: row.createdAt.toISOString(),
    expires_at: row.expiresAt.toISOString(),
  };
}
