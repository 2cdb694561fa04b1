import { LonghaulError } from '../contracts/error-codes.ts';
import type { SecretSource } from '../vault/source.ts';

/** Without a vault no value can be had: what needs one is refused. */
export const NO_SECRETS: SecretSource = {
  resolve: () => Promise.reject(new LonghaulError('credential_unavailable', 'this broker has no vault')),
  invalidate: () => undefined,
  hold: () => undefined,
  forget: () => undefined,
  close: () => Promise.resolve(),
};
