import type { OAuthRefresh, SecretParts } from '../contracts/credentials.ts';
import { LIMITS } from '../contracts/limits.ts';
import { OutboundError, type Outbound, type OutboundAnswer } from './outbound.ts';

export type RefreshOutcome =
  | { kind: 'renewed'; accessToken: string; refreshToken: string | null; expiresInMs: number | null }
  /** The server says that this token, or this client, will never do: only a person can help. */
  | { kind: 'refused'; error: string; answer: OutboundAnswer }
  /** The server is unwell; the same token may do later. */
  | { kind: 'failed'; answer: OutboundAnswer }
  /** `isSent` false: it certainly did not get the token. */
  | { kind: 'unreachable'; isSent: boolean; reason: string };

/** Errors of RFC 6749 §5.2 that no waiting mends. */
const FINAL = new Set([
  'invalid_grant',
  'invalid_client',
  'unauthorized_client',
  'unsupported_grant_type',
  'invalid_scope',
]);

/** Asks the token endpoint for a new access token (RFC 6749 §6). */
export async function renew(outbound: Outbound, refresh: OAuthRefresh, parts: SecretParts): Promise<RefreshOutcome> {
  const { body, headers } = tokenRequest(refresh, parts);
  let answer: OutboundAnswer;
  try {
    answer = await outbound.send(refresh.tokenEndpoint, {
      method: 'POST',
      headers,
      body,
      timeoutMs: LIMITS.oauthCallMs,
    });
  } catch (error) {
    if (!(error instanceof OutboundError)) throw error;
    return { kind: 'unreachable', isSent: error.isSent, reason: error.message };
  }
  const fields = jsonOf(answer);
  if (answer.status === 200 && isToken(fields['access_token'])) {
    const { refresh_token: refreshToken, expires_in: seconds } = fields;
    const life = typeof seconds === 'string' ? Number(seconds) : seconds;
    return {
      kind: 'renewed',
      accessToken: fields['access_token'],
      refreshToken: isToken(refreshToken) ? refreshToken : null,
      expiresInMs: typeof life === 'number' && life > 0 && life < 10 * 365 * 86_400 ? life * 1_000 : null,
    };
  }
  const { error } = fields;
  if (typeof error === 'string' && FINAL.has(error) && answer.status < 500) return { kind: 'refused', error, answer };
  return { kind: 'failed', answer };
}

function tokenRequest(refresh: OAuthRefresh, parts: SecretParts): { body: string; headers: Record<string, string> } {
  const form = new URLSearchParams({ grant_type: 'refresh_token', refresh_token: parts.refresh_token ?? '' });
  if (refresh.scope !== null) form.set('scope', refresh.scope);
  if (refresh.resource !== null) form.set('resource', refresh.resource);
  const headers: Record<string, string> = {
    'content-type': 'application/x-www-form-urlencoded',
    accept: 'application/json',
  };
  const secret = parts.client_secret ?? '';
  switch (refresh.tokenEndpointAuth) {
    case 'none':
      form.set('client_id', refresh.clientId);
      break;
    case 'client_secret_post':
      form.set('client_id', refresh.clientId);
      form.set('client_secret', secret);
      break;
    case 'client_secret_basic': {
      const pair = `${formEncoded(refresh.clientId)}:${formEncoded(secret)}`;
      headers['authorization'] = `Basic ${Buffer.from(pair).toString('base64')}`;
      break;
    }
  }
  return { body: form.toString(), headers };
}

/** RFC 6749 §2.3.1: both are encoded like a form before they are joined. */
function formEncoded(text: string): string {
  return new URLSearchParams({ v: text }).toString().slice(2);
}

/** What can stand in a header. */
function isToken(value: unknown): value is string {
  return typeof value === 'string' && value.length <= LIMITS.secretValueBytes && /^[!-~]+$/.test(value);
}

function jsonOf({ text }: OutboundAnswer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
