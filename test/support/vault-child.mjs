// Resolves one credential as the broker does, in a process that a test may kill. Arguments: database, credential.
import { createLogger } from '../../dist/telemetry/logger.js';
import { openVault } from '../../dist/vault/broker.js';

const [databaseUrl, credentialId] = process.argv.slice(2);
const logger = createLogger('test', 'silent');
const vault = openVault({ databaseUrl, env: process.env, logger, isPublicAddress: () => false });
try {
  const { version } = await vault.secrets.resolve(credentialId);
  process.stdout.write(`version ${version}\n`);
} catch (error) {
  process.stdout.write(`${error.code}\n`);
}
await vault.close();
