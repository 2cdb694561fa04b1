import os from 'node:os';
import path from 'node:path';

/** What the environment says about the local stack; read once, at the start of the command. */
export interface CliConfig {
  home: string;
  databaseUrl: string | undefined;
  temporalAddress: string | undefined;
  temporalNamespace: string;
  temporalUiUrl: string | undefined;
  /** An explicit Temporal CLI to run as the dev server. */
  temporalCli: string | undefined;
  cacheDir: string;
  logLevel: string | undefined;
  /** Hosts that routes of teams may go to. */
  gatewayHosts: string | undefined;
  portsUrl: string | undefined;
  /** Where clients reach the api; undefined: where it listens. */
  publicUrl: string | undefined;
}

const text = (name: string): string | undefined => {
  const value = process.env[name];
  return value === undefined || value === '' ? undefined : value;
};

/** Reads the configuration; the home is made absolute against the working directory. */
export function readConfig(): CliConfig {
  return {
    home: path.resolve(text('LONGHAUL_HOME') ?? '.longhaul'),
    databaseUrl: text('DATABASE_URL'),
    temporalAddress: text('TEMPORAL_ADDRESS'),
    temporalNamespace: text('TEMPORAL_NAMESPACE') ?? 'default',
    temporalUiUrl: text('TEMPORAL_UI_URL'),
    temporalCli: text('TEMPORAL_CLI'),
    cacheDir: path.join(text('XDG_CACHE_HOME') ?? path.join(os.homedir(), '.cache'), 'longhaul'),
    logLevel: text('LONGHAUL_LOG_LEVEL'),
    gatewayHosts: text('LONGHAUL_GATEWAY_HOSTS'),
    portsUrl: text('LONGHAUL_PORTS_URL'),
    publicUrl: text('LONGHAUL_PUBLIC_URL'),
  };
}

/** The whole environment, for children that get it with additions. */
export function inheritedEnvironment(): NodeJS.ProcessEnv {
  return { ...process.env };
}

/** Only what a native server needs: neither the user's environment nor the settings in their home reach it. */
export function bareEnvironment(home: string = os.tmpdir()): NodeJS.ProcessEnv {
  return { PATH: text('PATH') ?? '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C', HOME: home };
}
