import type { EgressRequestResource, SecurityEventResource } from '../../contracts/egress.ts';
import type { EgressRequestRow } from '../../db/queries/egress-requests.ts';
import type { SecurityEventRow } from '../../db/queries/security-events.ts';
import { isoOrNull } from './times.ts';

export function renderEgressRequest(row: EgressRequestRow): EgressRequestResource {
  return {
    id: row.id,
    type: 'egress_request',
    session_id: row.sessionId,
    sandbox_id: row.sandboxId,
    seq: row.seq,
    state: row.state,
    decision: row.decision,
    rule: row.rule,
    code: row.code,
    method: row.method,
    scheme: row.isTls ? 'https' : 'http',
    host: row.host,
    port: row.port,
    path: row.path,
    status: row.status,
    bytes_out: row.bytesOut,
    bytes_in: row.bytesIn,
    duration_ms: row.durationMs,
    credentials: row.credentials,
    approval_id: row.approvalId,
    error: row.error,
    count: row.count,
    created_at: row.createdAt.toISOString(),
    ended_at: isoOrNull(row.endedAt),
  };
}

export function renderSecurityEvent(row: SecurityEventRow): SecurityEventResource {
  return {
    id: row.id,
    type: 'security_event',
    session_id: row.sessionId,
    sandbox_id: row.sandboxId,
    kind: row.kind,
    message: row.message,
    host: row.host,
    egress_request_id: row.egressRequestId,
    details: row.details,
    created_at: row.createdAt.toISOString(),
  };
}
