import type { BackendName } from '../contracts/credentials.ts';
import type { CredentialValidation } from '../contracts/vaults.ts';
import { createPool } from '../db/pool.ts';
import type { Logger } from '../telemetry/logger.ts';
import { EnvBackend } from './backends/env.ts';
import { FileBackend } from './backends/file.ts';
import { HashicorpBackend } from './backends/hashicorp.ts';
import { InfisicalBackend } from './backends/infisical.ts';
import type { VaultBackend } from './backends/port.ts';
import { SYSTEM_CLOCK, type Clock } from './clock.ts';
import { readBackendsConfig, readVaultKeys, type BackendsConfig } from './config.ts';
import { Outbound } from './outbound.ts';
import { MemorySecretSource, type SecretSource } from './source.ts';
import { validateCredential } from './validate.ts';

/** The half of the vault that opens; the egress broker has the only one. */
export interface OpenVault {
  secrets: SecretSource;
  /** For requests of the broker itself. */
  outbound: Outbound;
  /** Tries an OAuth credential at its server. */
  validate(credentialId: string): Promise<Omit<CredentialValidation, 'type'>>;
  close(): Promise<void>;
}

/** Opens the vault, or refuses: without a master key there is nothing it could do. */
export function openVault(given: {
  databaseUrl: string;
  env: Record<string, string | undefined>;
  logger: Logger;
  isPublicAddress: (address: string) => boolean;
}): OpenVault {
  const ring = readVaultKeys(given.env);
  const config = readBackendsConfig(given.env);
  const clock = SYSTEM_CLOCK;
  const outbound = new Outbound({ isPublicAddress: given.isPublicAddress, privateHosts: config.privateHosts });
  // Its own connections: a slow token endpoint holds one, and the audit of requests must not wait for it.
  const pool = createPool({ databaseUrl: given.databaseUrl, applicationName: 'longhaul-egress-vault', max: 4 });
  const secrets = new MemorySecretSource({
    pool,
    ring,
    outbound,
    clock,
    logger: given.logger,
    backends: createBackends(config, clock),
  });
  return {
    secrets,
    outbound,
    validate: (credentialId) => validateCredential({ pool, ring, outbound, clock }, credentialId),
    close: async () => {
      await secrets.close();
      await pool.end();
    },
  };
}

function createBackends(config: BackendsConfig, clock: Clock): Map<BackendName, VaultBackend> {
  const backends = new Map<BackendName, VaultBackend>();
  if (config.env !== null) backends.set('env', new EnvBackend(config.env.values, config.env.names));
  if (config.fileRoot !== null) backends.set('file', new FileBackend(config.fileRoot));
  if (config.hashicorp !== null) backends.set('hashicorp', new HashicorpBackend(config.hashicorp, clock));
  if (config.infisical !== null) backends.set('infisical', new InfisicalBackend(config.infisical, clock));
  return backends;
}
