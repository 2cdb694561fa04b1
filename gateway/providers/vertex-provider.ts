import { GoogleAuth, type JWTInput } from 'google-auth-library';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { readRequestFacts, withFields } from '../routing/request.ts';
import { startLater } from './deferred.ts';
import { HttpCall, splitBase } from './http-call.ts';
import type { UpstreamPools } from './pools.ts';
import type { Provider, ProviderRequest } from './port.ts';

interface VertexOptions {
  project: string;
  location: string;
  baseUrl: string | undefined;
  /** A service account's key (its JSON) or the path of a file that holds it; undefined: the ambient identity. */
  credentials: string | undefined;
  pools: UpstreamPools;
}

const ANTHROPIC_VERSION = 'vertex-2023-10-16';
const SCOPE = 'https://www.googleapis.com/auth/cloud-platform';
const GOOGLE_TOKEN_HOST = 'oauth2.googleapis.com';

/** Anthropic's models on Google Vertex AI, with tokens fetched and renewed by Google's own code. */
export function createVertexProvider(options: VertexOptions): Provider {
  const { project, location, pools } = options;
  const { origin, prefix } = splitBase(options.baseUrl ?? endpointOf(location));
  const models = `${prefix}/v1/projects/${project}/locations/${location}/publishers/anthropic/models`;
  const nextToken = tokensOf(options.credentials);
  return {
    name: 'vertex',
    start: (request, sink) =>
      startLater(sink, async () => {
        const token = await nextToken().catch((error: unknown) => {
          throw new LonghaulError('provider_auth', 'Google gave the gateway no token', { cause: error });
        });
        const { action, body } = wireOf(request);
        const { accept, 'anthropic-beta': beta } = request.headers;
        const headers = {
          ...(accept === undefined ? {} : { accept }),
          ...(beta === undefined ? {} : { 'anthropic-beta': beta }),
          authorization: `Bearer ${token}`,
        };
        return () => new HttpCall(pools.to(origin), { path: `${models}/${action}`, headers, body }, sink);
      }),
    close: () => Promise.resolve(),
  };
}

/** The model stands in the path; only a count of tokens keeps it in the body, too. */
function wireOf(request: ProviderRequest): { action: string; body: Buffer } {
  if (request.operation === 'count_tokens') {
    return {
      action: 'count-tokens:rawPredict',
      body: withFields(request.body, { anthropic_version: ANTHROPIC_VERSION }),
    };
  }
  const verb = readRequestFacts(request.body).stream ? 'streamRawPredict' : 'rawPredict';
  return {
    action: `${encodeURIComponent(request.model).replaceAll('%40', '@')}:${verb}`,
    body: withFields(request.body, { model: undefined, anthropic_version: ANTHROPIC_VERSION }),
  };
}

function endpointOf(location: string): string {
  return `https://${location === 'global' ? '' : `${location}-`}aiplatform.googleapis.com`;
}

/** How to get a token; the library keeps it until shortly before it expires. */
function tokensOf(credentials: string | undefined): () => Promise<string | null | undefined> {
  if (credentials === undefined || !credentials.trimStart().startsWith('{')) {
    const file = credentials === undefined ? {} : { keyFilename: credentials };
    const auth = new GoogleAuth({ scopes: SCOPE, ...file });
    return () => auth.getAccessToken();
  }
  const key = JSON.parse(credentials) as JWTInput & { token_uri?: string };
  const auth = new GoogleAuth({ scopes: SCOPE, credentials: key });
  let ready: Promise<void> | undefined;
  return async () => {
    ready ??= key.token_uri === undefined ? Promise.resolve() : askTokensAt(auth, key.token_uri);
    await ready;
    return auth.getAccessToken();
  };
}

/** The library knows Google's public token server only; a key file may name another one (a private endpoint). */
async function askTokensAt(auth: GoogleAuth, tokenUri: string): Promise<void> {
  const client = await auth.getClient();
  client.transporter.interceptors.request.add({
    resolved: (config) => {
      if (config.url.hostname === GOOGLE_TOKEN_HOST) config.url = new URL(tokenUri);
      return Promise.resolve(config);
    },
  });
}
