import { z } from 'zod';
import { time } from './fields.ts';

const promptTtl = z.enum(['5m', '1h']);
const responseTtl = z.enum(['5m', '1h', '24h', 'default']);

/** How an agent's or a key's prompts are cached at the provider. */
export const promptCachingParam = z
  .union([
    z.enum(['auto', 'off']),
    z.strictObject({ type: z.literal('auto'), ttl: promptTtl.optional() }),
    z.strictObject({ type: z.literal('off') }),
  ])
  .meta({ description: 'Cache breakpoints placed by Longhaul; `auto` keeps static parts for 5 minutes' });
export const promptCaching = z
  .discriminatedUnion('type', [
    z.object({ type: z.literal('auto'), ttl: promptTtl }),
    z.object({ type: z.literal('off') }),
  ])
  .meta({ id: 'PromptCaching' });

/** Whether and for how long answers are given again; null: never. */
export const responseCacheParam = z
  .strictObject({
    ttl: responseTtl.optional().meta({ description: '`default` follows LONGHAUL_ENVIRONMENT' }),
    tool_calls: z.boolean().optional().meta({ description: 'Also answers that call tools; default false' }),
  })
  .meta({ description: 'The same request gets the same answer again, for nothing' });
export const responseCache = z.object({ ttl: responseTtl, tool_calls: z.boolean() }).meta({ id: 'ResponseCache' });

const layer = z.object({
  layer: z.enum(['prompt', 'response', 'content']),
  hits: z.number().int(),
  misses: z.number().int(),
  hit_rate: z.number().nullable(),
});
const digests = { tools: z.string(), system: z.string(), skills: z.string() };
const promptPrefix = z.object({
  fingerprint: z.string(),
  parts: z.object(digests),
  size_bytes: z.number().int(),
  first_seen_at: time,
  changed: z.array(z.enum(['tools', 'system', 'skills'])).meta({ description: 'Against the one seen before' }),
});
/** What is known of an agent version's caches. */
export const agentCache = z
  .object({
    agent_id: z.string(),
    version: z.number().int(),
    prompt_fingerprint: z.string().nullable().meta({ description: 'The newest static prefix; null: none seen yet' }),
    prompt_prefix_changes: z.number().int(),
    prompt_prefixes: z.array(promptPrefix),
    layers: z.array(layer),
  })
  .meta({ id: 'AgentCache' });
