import { z } from 'zod';
import { time } from './fields.ts';
import { pageParams } from './paging.ts';
import { ROUTING_STRATEGIES } from './routing.ts';

const MAX_DEPLOYMENTS = 50;
const MAX_FALLBACKS = 10;
const MAX_PATTERN_CHARS = 256;

const credential = z
  .string()
  .max(256)
  .regex(/^env:[A-Za-z_]\w*$/, 'must be env:NAME, a variable of the gateway: keys themselves are never taken')
  .meta({ description: 'Names a variable of the gateway’s environment', example: 'env:OPENAI_API_KEY' });
const baseUrl = z
  .url({ protocol: /^https?$/, error: 'must be an http or https URL' })
  .max(2_000)
  .refine((text) => {
    // Said already.
    if (!URL.canParse(text)) return true;
    const url = new URL(text);
    return url.username === '' && url.password === '' && url.search === '' && url.hash === '';
  }, 'must have no credentials, query or fragment');
const pattern = z
  .string()
  .min(1)
  .max(MAX_PATTERN_CHARS)
  .regex(/^[^\s*]*\*?$/, 'must have no space, and a * at its end only');
const slug = z.string().regex(/^[\w.:/@-]{1,128}$/, 'must be 1 to 128 letters, digits or any of . _ : / @ -');
const region = z.string().regex(/^[a-z0-9-]{1,40}$/, 'must be the name of a region');
const milliseconds = z
  .number()
  .int()
  .min(1)
  .max(20 * 60_000);
const nanos = z.number().min(0).max(1_000_000_000);

/** Nano-dollars a token: 5 USD per million tokens is 5000; fractions are allowed. */
export const modelPrice = z
  .strictObject({
    input_nanos: nanos,
    output_nanos: nanos,
    cache_read_nanos: nanos.exactOptional(),
    cache_write_5m_nanos: nanos.exactOptional(),
    cache_write_1h_nanos: nanos.exactOptional(),
  })
  .meta({ id: 'ModelPrice' });

const shared = {
  id: slug.exactOptional().meta({ description: 'Name in ledger and attempts; default: the route’s name and a number' }),
  model: pattern.meta({ description: 'The provider’s id of the model; a * takes what the route’s * stands for' }),
  weight: z.number().min(0).max(1_000_000).exactOptional(),
  timeout_ms: milliseconds.exactOptional().meta({ description: 'For an answer that does not stream' }),
  first_byte_timeout_ms: milliseconds.exactOptional().meta({ description: 'For the first byte of a stream' }),
  price: modelPrice.exactOptional(),
};

export const modelDeployment = z
  .discriminatedUnion('provider', [
    z.strictObject({
      provider: z.literal('anthropic'),
      ...shared,
      base_url: baseUrl.exactOptional(),
      api_key: credential.exactOptional(),
    }),
    z.strictObject({
      provider: z.literal('openai'),
      ...shared,
      base_url: baseUrl.exactOptional(),
      api_key: credential.exactOptional(),
    }),
    z.strictObject({
      provider: z.literal('gemini'),
      ...shared,
      base_url: baseUrl.exactOptional(),
      api_key: credential.exactOptional(),
    }),
    z.strictObject({
      provider: z.literal('openai-compatible'),
      ...shared,
      base_url: baseUrl,
      api_key: credential.exactOptional(),
      protocols: z
        .array(z.enum(['messages', 'chat', 'responses']))
        .min(1)
        .max(3)
        .exactOptional(),
    }),
    z.strictObject({
      provider: z.literal('azure-openai'),
      ...shared,
      base_url: baseUrl.meta({ description: 'The resource: https://<name>.openai.azure.com' }),
      api_key: credential,
      api_version: z.string().regex(/^[\w-]{1,40}$/),
    }),
    z.strictObject({
      provider: z.literal('bedrock'),
      ...shared,
      region,
      base_url: baseUrl.exactOptional(),
      access_key_id: credential.exactOptional(),
      secret_access_key: credential.exactOptional(),
      session_token: credential.exactOptional(),
    }),
    z.strictObject({
      provider: z.literal('vertex'),
      ...shared,
      project: z.string().regex(/^[a-z0-9:.-]{1,100}$/),
      location: region,
      base_url: baseUrl.exactOptional(),
      credentials: credential.exactOptional(),
    }),
    z.strictObject({ provider: z.literal('scripted'), ...shared }),
  ])
  .superRefine((deployment, context) => {
    if (deployment.provider !== 'bedrock') return;
    if ((deployment.access_key_id === undefined) !== (deployment.secret_access_key === undefined)) {
      context.addIssue({
        code: 'custom',
        path: ['secret_access_key'],
        message: 'access_key_id and secret_access_key go together',
      });
    }
  })
  .meta({ id: 'ModelDeployment' });
export type ModelDeployment = z.infer<typeof modelDeployment>;

const fallbackNames = z.array(z.string().min(1).max(MAX_PATTERN_CHARS)).max(MAX_FALLBACKS);
const fallbacks = z
  .strictObject({
    default: fallbackNames.exactOptional(),
    rate_limited: fallbackNames.exactOptional(),
    unavailable: fallbackNames.exactOptional(),
    timeout: fallbackNames.exactOptional(),
    context_window: fallbackNames.exactOptional(),
    content_policy: fallbackNames.exactOptional(),
  })
  .meta({
    id: 'ModelFallbacks',
    description:
      'Models to ask instead, by why the attempts failed; default: for every reason without a list of its own',
  });

const routeFields = {
  deployments: z.array(modelDeployment).min(1).max(MAX_DEPLOYMENTS),
  strategy: z.enum(ROUTING_STRATEGIES).exactOptional(),
  fallbacks: fallbacks.exactOptional(),
  retries: z.number().int().min(0).max(10).exactOptional(),
  allowed_fails: z.number().int().min(0).max(1_000).exactOptional(),
  cooldown_ms: z.number().int().min(0).max(3_600_000).exactOptional(),
};

/** A model name of ours (or a pattern of names) and who answers for it. */
export const modelRouteParam = z.strictObject({ name: pattern, ...routeFields }).meta({ id: 'ModelRouteCreate' });
export type ModelRouteSpec = z.infer<typeof modelRouteParam>;

/** Every field given replaces that field. */
export const modelRouteUpdate = z
  .strictObject({
    deployments: routeFields.deployments.optional(),
    strategy: z.enum(ROUTING_STRATEGIES).nullish(),
    fallbacks: fallbacks.nullish(),
    retries: z.number().int().min(0).max(10).nullish(),
    allowed_fails: z.number().int().min(0).max(1_000).nullish(),
    cooldown_ms: z.number().int().min(0).max(3_600_000).nullish(),
  })
  .meta({ id: 'ModelRouteUpdate' });

export const modelRoute = z
  .object({
    id: z.string(),
    type: z.literal('model_route'),
    name: z.string(),
    deployments: z.array(modelDeployment),
    strategy: z.enum(ROUTING_STRATEGIES),
    fallbacks,
    retries: z.number(),
    allowed_fails: z.number(),
    cooldown_ms: z.number(),
    created_at: time,
    updated_at: time,
  })
  .meta({ id: 'ModelRoute' });
export type ModelRouteResource = z.infer<typeof modelRoute>;

export const modelRoutePath = z.object({ model_route_id: z.string() });
export const modelRouteListQuery = z.strictObject(pageParams);
export const modelRouteDeleted = z.object({ id: z.string(), type: z.literal('model_route_deleted') });

const allowedModels = z.array(pattern).max(1_000).nullable();
/** Which models a team may call; null: all it can reach. */
export const modelPolicyUpdate = z.strictObject({ allowed_models: allowedModels }).meta({ id: 'ModelPolicyUpdate' });
export const modelPolicy = z
  .object({
    type: z.literal('model_policy'),
    team_id: z.string(),
    allowed_models: allowedModels,
    updated_at: time.nullable(),
  })
  .meta({ id: 'ModelPolicy' });

/** The configuration file of a gateway, in our own shape. */
export const gatewayFile = z.strictObject({
  routes: z.array(modelRouteParam).max(1_000).default([]),
  aliases: z.record(z.string().min(1).max(MAX_PATTERN_CHARS), z.string().min(1).max(MAX_PATTERN_CHARS)).default({}),
  teams: z.record(z.string(), z.strictObject({ allowed_models: z.array(pattern).max(1_000) })).default({}),
});
export type GatewayFile = z.infer<typeof gatewayFile>;
