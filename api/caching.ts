import type { z } from 'zod';
import type { promptCachingParam, responseCacheParam } from '../contracts/agent-cache.ts';
import { DEFAULT_PROMPT_CACHING, type PromptCaching, type ResponseCaching } from '../contracts/caching.ts';
import type { AgentDefinition } from '../contracts/definitions.ts';

type CachingFields = Pick<AgentDefinition, 'prompt_caching' | 'response_cache'>;
interface CachingParams {
  prompt_caching?: z.infer<typeof promptCachingParam> | null | undefined;
  response_cache?: z.infer<typeof responseCacheParam> | null | undefined;
}

/** The caching fields as stored: absent in `params` keeps, null clears, shorthands are written out. */
export function resolveCaching(params: CachingParams, before: CachingFields = {}): CachingFields {
  const prompt =
    params.prompt_caching === undefined ? before.prompt_caching : resolvePromptCaching(params.prompt_caching);
  const response =
    params.response_cache === undefined ? before.response_cache : resolveResponseCache(params.response_cache);
  return {
    ...(prompt === undefined ? {} : { prompt_caching: prompt }),
    ...(response === undefined ? {} : { response_cache: response }),
  };
}

/** The definition without its caching fields, for an edit that sets them anew. */
export function withoutCaching(definition: AgentDefinition): Omit<AgentDefinition, keyof CachingFields> {
  const { prompt_caching: _prompt, response_cache: _response, ...rest } = definition;
  return rest;
}

function resolvePromptCaching(param: CachingParams['prompt_caching']): PromptCaching | undefined {
  if (param === undefined || param === null) return undefined;
  if (param === 'auto') return DEFAULT_PROMPT_CACHING;
  if (param === 'off' || param.type === 'off') return { type: 'off' };
  return { type: 'auto', ttl: param.ttl ?? '5m' };
}

function resolveResponseCache(param: CachingParams['response_cache']): ResponseCaching | undefined {
  if (param === undefined || param === null) return undefined;
  return { ttl: param.ttl ?? 'default', tool_calls: param.tool_calls ?? false };
}
