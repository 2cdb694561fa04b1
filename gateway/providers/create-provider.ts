import type { ModelDeployment } from '../../contracts/model-routes.ts';
import { assertNever } from '../../contracts/states.ts';
import type { Protocol } from '../protocol.ts';
import { createAzureProvider } from './azure-provider.ts';
import { createDeferredProvider } from './deferred.ts';
import { createHttpProvider } from './http-provider.ts';
import type { UpstreamPools } from './pools.ts';
import type { Provider, ProviderRequest } from './port.ts';

const ANTHROPIC_URL = 'https://api.anthropic.com';
const GEMINI_URL = 'https://generativelanguage.googleapis.com';
const OPENAI_URL = 'https://api.openai.com/v1';

/** Where a deployment's requests go; undefined for one that goes nowhere. */
export function endpointOf(deployment: ModelDeployment): string | undefined {
  switch (deployment.provider) {
    case 'anthropic':
      return deployment.base_url ?? ANTHROPIC_URL;
    case 'openai':
      return deployment.base_url ?? OPENAI_URL;
    case 'gemini':
      return deployment.base_url ?? GEMINI_URL;
    case 'openai-compatible':
    case 'azure-openai':
      return deployment.base_url;
    case 'bedrock':
      return deployment.base_url ?? `https://bedrock-runtime.${deployment.region}.amazonaws.com`;
    case 'vertex': {
      const prefix = deployment.location === 'global' ? '' : `${deployment.location}-`;
      return deployment.base_url ?? `https://${prefix}aiplatform.googleapis.com`;
    }
    case 'scripted':
      return undefined;
    default:
      return assertNever(deployment);
  }
}

/** The references to keys a deployment has, as `[field, env:NAME]`. */
export function credentialRefsOf(deployment: ModelDeployment): [string, string][] {
  const fields = ['api_key', 'access_key_id', 'secret_access_key', 'session_token', 'credentials'] as const;
  return fields.flatMap((field) => {
    const ref = (deployment as Partial<Record<(typeof fields)[number], string>>)[field];
    return ref === undefined ? [] : [[field, ref] as [string, string]];
  });
}

/** Which protocols a deployment's provider answers; nothing is ever translated. */
export function speaks(
  deployment: ModelDeployment,
  protocol: Protocol,
  operation: ProviderRequest['operation'],
): boolean {
  switch (deployment.provider) {
    case 'anthropic':
    case 'vertex':
      return protocol === 'messages';
    case 'bedrock':
      return protocol === 'messages' && operation === 'generate';
    case 'gemini':
      return protocol === 'gemini';
    case 'openai':
    case 'azure-openai':
      return isOpenai(protocol);
    case 'openai-compatible':
      return protocol !== 'gemini' && (deployment.protocols?.includes(protocol) ?? isOpenai(protocol));
    case 'scripted':
      return true;
    default:
      return assertNever(deployment);
  }
}

function isOpenai(protocol: Protocol): boolean {
  return protocol === 'chat' || protocol === 'responses';
}

interface ProviderParts {
  pools: UpstreamPools;
  /** The value behind `env:NAME`. */
  secret: (ref: string | undefined) => string | undefined;
  scripted: Provider | undefined;
}

/** The provider of a deployment whose keys are all there. */
export function createProvider(deployment: ModelDeployment, { pools, secret, scripted }: ProviderParts): Provider {
  const baseUrl = endpointOf(deployment) ?? '';
  switch (deployment.provider) {
    case 'anthropic':
      return createHttpProvider({
        name: 'anthropic',
        api: 'anthropic',
        baseUrl,
        apiKey: secret(deployment.api_key),
        pools,
      });
    case 'gemini':
    case 'openai':
    case 'openai-compatible':
      return createHttpProvider({
        name: deployment.provider,
        api: deployment.provider === 'gemini' ? 'gemini' : 'openai',
        baseUrl,
        apiKey: secret(deployment.api_key),
        pools,
      });
    case 'azure-openai':
      return createAzureProvider({
        baseUrl,
        apiVersion: deployment.api_version,
        apiKey: secret(deployment.api_key) ?? '',
        pools,
      });
    case 'bedrock':
      return createDeferredProvider('bedrock', async () => {
        const { createBedrockProvider } = await import('./bedrock-provider.ts');
        const keys = awsKeys(deployment, secret);
        return createBedrockProvider({ region: deployment.region, baseUrl, keys, pools });
      });
    case 'vertex':
      return createDeferredProvider('vertex', async () => {
        const { createVertexProvider } = await import('./vertex-provider.ts');
        const credentials = secret(deployment.credentials) ?? secret('env:GOOGLE_APPLICATION_CREDENTIALS_JSON');
        return createVertexProvider({ ...deployment, baseUrl, credentials, pools });
      });
    case 'scripted':
      if (scripted === undefined) throw new Error('the scripted model is off');
      return scripted;
    default:
      return assertNever(deployment);
  }
}

/** The deployment's own keys, else those of the gateway's environment, else what AWS' own order finds. */
function awsKeys(
  deployment: Extract<ModelDeployment, { provider: 'bedrock' }>,
  secret: ProviderParts['secret'],
): { accessKeyId: string; secretAccessKey: string; sessionToken?: string } | undefined {
  const own = deployment.access_key_id !== undefined;
  const accessKeyId = secret(own ? deployment.access_key_id : 'env:AWS_ACCESS_KEY_ID');
  const secretAccessKey = secret(own ? deployment.secret_access_key : 'env:AWS_SECRET_ACCESS_KEY');
  const sessionToken = secret(own ? deployment.session_token : 'env:AWS_SESSION_TOKEN');
  if (accessKeyId === undefined || secretAccessKey === undefined) return undefined;
  return { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) };
}
