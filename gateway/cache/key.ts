import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import type { Protocol } from '../protocol.ts';

type Json = Record<string, unknown>;

/** What an answer depends on beside the body. */
export interface KeyFacts {
  protocol: Protocol;
  /** After aliases are resolved: two names of one model share answers. */
  model: string;
  /** A stream is kept as a stream, a whole answer whole: each its own entry. */
  isStream: boolean;
  teamId: string;
  /** Answers of another agent version, or of another word of the operator, are not given. */
  promptVersion: string;
  /** Protocol headers that change answers: versions and betas. */
  headers: Readonly<Record<string, string>>;
}

/** Fields that say who asks, or how the answer travels, and nothing of what it says. */
const NO_MATTER: ReadonlySet<string> = new Set([
  'model',
  'stream',
  'stream_options',
  'metadata',
  'user',
  'safety_identifier',
  'prompt_cache_key',
  'prompt_cache_retention',
  'cache_control',
  'diagnostics',
  'service_tier',
  'store',
]);
/** Fields that make an answer depend on something the provider keeps: it cannot be known from the request. */
const STATEFUL: readonly string[] = [
  'previous_response_id',
  'conversation',
  'background',
  'container',
  'cachedContent',
];

/** SHA-256, hex, of the RFC 8785 canonical JSON. */
export function digestOf(value: unknown): string {
  return createHash('sha256')
    .update(canonicalize(value) ?? 'null')
    .digest('hex');
}

/**
 * Key of the answer to a request: equal for requests that say the same, whatever the order of their fields, their ids, cache
 * breakpoints and stream flag. Undefined for a request whose answer depends on more than itself.
 */
export function responseKey(facts: KeyFacts, body: Json): string | undefined {
  if (STATEFUL.some((field) => body[field] !== undefined && body[field] !== null && body[field] !== false)) {
    return undefined;
  }
  // A stored response is somebody's: a caller that got its id from here could not go on from it.
  if (facts.protocol === 'responses' && body['store'] !== false) return undefined;
  const input = body['input'];
  if (Array.isArray(input) && input.some((item) => isObject(item) && item['type'] === 'item_reference')) {
    return undefined;
  }
  const asked = Object.fromEntries(Object.entries(body).filter(([name]) => !NO_MATTER.has(name)));
  const ids = new Map<string, string>();
  for (const list of ['messages', 'input']) if (list in asked) asked[list] = withoutIds(asked[list], ids);
  for (const list of ['tools', 'system']) if (list in asked) asked[list] = withoutMarkers(asked[list]);
  const { protocol, model, teamId, promptVersion, headers } = facts;
  const form = facts.isStream ? 'stream' : 'whole';
  return `${form}/${digestOf({ protocol, model, teamId, promptVersion, headers, asked })}`;
}

/** Key of what follows from the bytes alone. */
export function contentKey(facts: { step: string; teamId: string; model: string }, source: Buffer): string {
  const digest = createHash('sha256').update(`${facts.step}\n${facts.teamId}\n${facts.model}\n`).update(source);
  return `content/${digest.digest('hex')}`;
}

/** Messages (or input items) with their ids numbered in order of appearance: providers draw them at random. */
function withoutIds(list: unknown, ids: Map<string, string>): unknown {
  const numbered = (id: unknown): unknown => {
    if (typeof id !== 'string') return id;
    const known = ids.get(id) ?? `#${ids.size}`;
    ids.set(id, known);
    return known;
  };
  const clean = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(clean);
    if (!isObject(value)) return value;
    const { id, cache_control: _marker, ...rest } = value;
    // An item's own id means something only where a result names it.
    if (typeof value['type'] === 'string' && value['type'].endsWith('tool_use')) rest['id'] = numbered(id);
    for (const name of ['tool_use_id', 'tool_call_id', 'call_id']) if (name in rest) rest[name] = numbered(rest[name]);
    if (Array.isArray(rest['tool_calls'])) {
      rest['tool_calls'] = rest['tool_calls'].map((call: unknown) =>
        isObject(call) ? { ...call, id: numbered(call['id']) } : call,
      );
    }
    // Not deeper: what tools are given and say is content.
    if (Array.isArray(rest['content'])) rest['content'] = rest['content'].map(clean);
    else if (typeof rest['content'] === 'string') rest['content'] = [{ type: 'text', text: rest['content'] }];
    return rest;
  };
  return clean(list);
}

/** Tools or system blocks without cache breakpoints; text becomes the block it stands for. */
export function withoutMarkers(value: unknown): unknown {
  if (typeof value === 'string') return [{ type: 'text', text: value }];
  if (!Array.isArray(value)) return value;
  return value.map((item: unknown) => {
    if (!isObject(item)) return item;
    const { cache_control: _marker, ...rest } = item;
    return rest;
  });
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
