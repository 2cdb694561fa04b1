import { HttpCall, splitBase, storedRequest } from './http-call.ts';
import type { UpstreamPools } from './pools.ts';
import type { Provider } from './port.ts';

interface AzureOptions {
  /** The resource, without `/openai`. */
  baseUrl: string;
  apiVersion: string;
  apiKey: string;
  pools: UpstreamPools;
}

/** Azure OpenAI: the deployment stands in the path of chats and in the body of responses. */
export function createAzureProvider({ baseUrl, apiVersion, apiKey, pools }: AzureOptions): Provider {
  const { origin, prefix } = splitBase(baseUrl.replace(/\/openai\/?$/, ''));
  const search = `?api-version=${encodeURIComponent(apiVersion)}`;
  return {
    name: 'azure-openai',
    start: (request, sink) => {
      const operation =
        request.protocol === 'responses'
          ? '/responses'
          : `/deployments/${encodeURIComponent(request.model)}/chat/completions`;
      const path = `${prefix}/openai${operation}${search}`;
      const headers = { ...request.headers, 'api-key': apiKey };
      return new HttpCall(pools.to(origin), { path, headers, body: request.body }, sink);
    },
    stored: (request, sink) => {
      const { method, path } = storedRequest(request);
      const query = request.search === '' ? search : `${search}&${request.search.slice(1)}`;
      const headers = { ...request.headers, 'api-key': apiKey };
      return new HttpCall(pools.to(origin), { method, path: `${prefix}/openai${path}${query}`, headers }, sink);
    },
    close: () => Promise.resolve(),
  };
}
