import { LonghaulError } from '../contracts/error-codes.ts';
import type { Queryable } from '../db/pool.ts';
import { anyApiKey } from '../db/queries/api-keys.ts';
import type { ApiConfig } from './config.ts';

const LOOPBACK = new Set(['127.0.0.1', '::1', 'localhost']);

/** Only loopback is open by default; anything wider needs a key to exist and the operator's word. */
export async function requireSafeBind(db: Queryable, config: ApiConfig): Promise<void> {
  if (LOOPBACK.has(config.host)) return;
  if (!config.allowPublic) {
    throw new LonghaulError('insecure_bind', `${config.host} can be reached by other machines`);
  }
  if (!(await anyApiKey(db))) {
    throw new LonghaulError('insecure_bind', `${config.host} can be reached by other machines and there is no API key`);
  }
}
