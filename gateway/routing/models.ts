import { LonghaulError } from '../../contracts/error-codes.ts';
import { PRICED_MODELS } from '../../contracts/prices.ts';
import type { GatewayConfig } from '../config.ts';
import type { Protocol } from '../protocol.ts';

export type ProviderName = 'anthropic' | 'openai' | 'scripted';

/** Who answers for a model, and under which name the provider knows it. */
export interface Route {
  provider: ProviderName;
  providerModel: string;
}

/** The offline model of development and tests. */
export const SCRIPTED_MODEL = 'scripted';

/** Model → upstream by the name's shape; a name nobody answers for is `model_not_found`. */
export function routeModel(config: GatewayConfig, protocol: Protocol, model: string): Route {
  const provider = providerOf(config, model);
  if (provider === undefined) {
    throw new LonghaulError('model_not_found', `no provider is configured for model "${model}"`, { field: 'model' });
  }
  if (provider !== 'scripted' && (provider === 'anthropic') !== (protocol === 'messages')) {
    const path = provider === 'anthropic' ? '/v1/messages' : '/v1/chat/completions or /v1/responses';
    throw new LonghaulError('model_not_found', `model "${model}" is served on ${path}`, { field: 'model' });
  }
  return { provider, providerModel: model.replace(/^(anthropic|openai)\//, '') };
}

function providerOf(config: GatewayConfig, model: string): ProviderName | undefined {
  if (model === SCRIPTED_MODEL) return config.scripted ? 'scripted' : undefined;
  if (/^(claude-|anthropic\/)/.test(model)) return config.anthropic && 'anthropic';
  if (/^(gpt-|o\d|openai\/)/.test(model) || config.openaiTakesUnknownModels) return config.openai && 'openai';
  return undefined;
}

/** Models to list: those with a price whose provider is configured. */
export function listModels(config: GatewayConfig): { id: string; provider: ProviderName }[] {
  return PRICED_MODELS.flatMap((id) => {
    const provider = providerOf(config, id);
    return provider === undefined ? [] : [{ id, provider }];
  });
}

/** A model in both vendors' list shapes. */
export function describeModel({
  id,
  provider,
}: {
  id: string;
  provider: ProviderName;
}): Record<string, unknown> & { id: string } {
  const label = provider === 'scripted' ? 'Scripted (offline, for development and tests)' : id;
  return {
    id,
    type: 'model',
    object: 'model',
    display_name: label,
    created_at: '1970-01-01T00:00:00Z',
    created: 0,
    owned_by: provider,
  };
}
