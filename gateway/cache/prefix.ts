import canonicalize from 'canonicalize';
import type { PromptPrefix } from '../../db/queries/prompt-prefixes.ts';
import { digestOf, withoutMarkers } from './key.ts';

type Json = Record<string, unknown>;

/** The static prefix of a Messages request, without cache breakpoints. */
export function prefixOfBody(body: Json): PromptPrefix {
  const container = body['container'];
  const skills = typeof container === 'object' && container !== null ? (container as Json)['skills'] : undefined;
  const tools = withoutMarkers(body['tools'] ?? []);
  const system = withoutMarkers(body['system'] ?? []);
  const digests = { tools: digestOf(tools), system: digestOf(system), skills: digestOf(skills ?? []) };
  const text = [tools, system, skills ?? []].map((part) => canonicalize(part) ?? '').join('');
  return { fingerprint: digestOf(digests), digests, sizeBytes: Buffer.byteLength(text) };
}

const DIGEST = '[0-9a-f]{64}';
const PREFIX = new RegExp(`^tools=(${DIGEST}) system=(${DIGEST}) skills=(${DIGEST}) bytes=(\\d{1,9})$`);

/** The prefix as the built-in loop tells it; undefined when the header is not one. */
export function readPrefixHeader(value: string | string[] | undefined): PromptPrefix | undefined {
  const match = typeof value === 'string' ? PREFIX.exec(value) : null;
  if (match === null) return undefined;
  const [, tools = '', system = '', skills = '', bytes = ''] = match;
  const digests = { tools, system, skills };
  return { fingerprint: digestOf(digests), digests, sizeBytes: Number(bytes) };
}
