import { LonghaulError } from '../../contracts/error-codes.ts';

/** What a provider answers where it has no such thing; `capabilities` says so before anybody asks. */
export function unsupported(provider: string, what: string): LonghaulError {
  return new LonghaulError('sandbox_unsupported', `${provider} sandboxes cannot ${what}`);
}
