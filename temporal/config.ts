import type { ConnectionOptions } from '@temporalio/client';
import { loadClientConnectConfig } from '@temporalio/envconfig';

/** How this process reaches Temporal. */
export interface TemporalTarget {
  connection: Pick<ConnectionOptions, 'tls' | 'metadata'> & { address: string; apiKey?: string };
  namespace: string;
}

/**
 * Reads TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY and TEMPORAL_TLS_* as Temporal's own tools do. A
 * `temporal.toml` counts only when TEMPORAL_CONFIG_FILE or TEMPORAL_PROFILE asks for it: the credentials of somebody's
 * default profile must not be sent to the local development server.
 */
export function readTemporalTarget(env: NodeJS.ProcessEnv = process.env): TemporalTarget {
  const variables = Object.entries(env).flatMap(([key, value]) => (value === undefined ? [] : [[key, value] as const]));
  const { connectionOptions, namespace } = loadClientConnectConfig({
    disableFile: env['TEMPORAL_CONFIG_FILE'] === undefined && env['TEMPORAL_PROFILE'] === undefined,
    overrideEnvVars: Object.fromEntries(variables),
  });
  const { address, tls, apiKey, metadata } = connectionOptions;
  return {
    connection: {
      address: address ?? '127.0.0.1:7233',
      ...(tls === undefined || tls === null ? {} : { tls }),
      ...(apiKey === undefined ? {} : { apiKey }),
      ...(metadata === undefined ? {} : { metadata }),
    },
    namespace: namespace ?? 'default',
  };
}
