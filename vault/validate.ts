import type { SecretParts } from '../contracts/credentials.ts';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { CredentialValidation } from '../contracts/vaults.ts';
import { findSealedCredential, type SealedCredential } from '../db/queries/credential-secrets.ts';
import { ValueMatcher } from '../telemetry/values.ts';
import { openAll } from './backends/postgres.ts';
import { OutboundError, type OutboundAnswer } from './outbound.ts';
import { refreshCredential, type RefreshDeps } from './refresh.ts';

const SHOWN_CHARS = 2_048;
const PROBE_MS = 7_000;

interface Probe {
  isAccepted: boolean;
  isRefused: boolean;
  answer: OutboundAnswer | null;
}

/** Tries an access token at its MCP server; one that is refused is renewed once and tried again. */
export async function validateCredential(
  deps: RefreshDeps,
  credentialId: string,
): Promise<Omit<CredentialValidation, 'type'>> {
  const row = await find(deps, credentialId);
  const parts = openAll(deps.ring, row);
  const hasRefreshToken = parts.refresh_token !== undefined;
  const shared = {
    credential_id: row.id,
    vault_id: row.vaultId,
    has_refresh_token: hasRefreshToken,
    validated_at: new Date(deps.clock.nowMs()).toISOString(),
  };
  const first = await probe(deps, row, parts);
  if (!first.isRefused) return { ...shared, ...verdict(first, parts), refresh: null };
  if (!hasRefreshToken) {
    return { ...shared, ...verdict(first, parts), refresh: { status: 'no_refresh_token', http_response: null } };
  }
  const outcome = await refreshCredential(deps, row.id, row.version);
  if (outcome !== undefined && outcome.kind !== 'renewed') {
    const isReached = outcome.kind !== 'unreachable';
    const refresh = isReached
      ? { status: 'failed' as const, http_response: shown(outcome.answer, parts) }
      : { status: 'connect_error' as const, http_response: null };
    const { mcp_probe } = verdict(first, parts);
    return { ...shared, status: outcome.kind === 'refused' ? 'invalid' : 'unknown', mcp_probe, refresh };
  }
  const renewed = await find(deps, credentialId);
  const newParts = openAll(deps.ring, renewed);
  const second = await probe(deps, renewed, newParts);
  return {
    ...shared,
    ...verdict(second, { ...parts, ...newParts }),
    refresh: { status: 'succeeded', http_response: null },
  };
}

async function find({ pool }: RefreshDeps, credentialId: string): Promise<SealedCredential> {
  const row = await findSealedCredential(pool, credentialId);
  if (row !== undefined && row.kind === 'mcp_oauth') return row;
  throw new LonghaulError('not_found', `there is no OAuth credential ${credentialId}`);
}

/** The first message of the protocol, which a server answers only to whom it knows. */
async function probe(deps: RefreshDeps, row: SealedCredential, parts: SecretParts): Promise<Probe> {
  const params = { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'longhaul', version: '1' } };
  try {
    const answer = await deps.outbound.send(row.spec.mcpServerUrl ?? '', {
      method: 'POST',
      headers: {
        authorization: `Bearer ${parts.access_token ?? ''}`,
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
      },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params }),
      timeoutMs: PROBE_MS,
    });
    const isAccepted = answer.status >= 200 && answer.status < 300;
    return { isAccepted, isRefused: answer.status === 401, answer };
  } catch (error) {
    if (error instanceof OutboundError) return { isAccepted: false, isRefused: false, answer: null };
    throw error;
  }
}

function verdict(
  { isAccepted, isRefused, answer }: Probe,
  parts: SecretParts,
): Pick<CredentialValidation, 'status' | 'mcp_probe'> {
  if (isAccepted) return { status: 'valid', mcp_probe: null };
  const isFinal = isRefused || answer?.status === 403;
  const response = answer === null ? null : shown(answer, parts);
  return { status: isFinal ? 'invalid' : 'unknown', mcp_probe: { method: 'initialize', http_response: response } };
}

/** The beginning of an answer, without what we sent. */
function shown(answer: OutboundAnswer, parts: SecretParts) {
  const values = Object.values(parts).map((value) => ({ value, standIn: '[redacted]' }));
  // A server that echoes what it got does so in Basic, forms and JSON, too.
  const body = new ValueMatcher(values).redact(answer.text).text;
  return {
    status_code: answer.status,
    content_type: answer.contentType.slice(0, 256),
    body: body.slice(0, SHOWN_CHARS),
    body_truncated: answer.isTruncated || body.length > SHOWN_CHARS,
  };
}
