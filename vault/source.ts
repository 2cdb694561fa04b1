/** A secret as the broker puts it into a request. Never logged, stored or sent anywhere but to a bound host. */
export interface ResolvedSecret {
  value: string;
  version: number;
  /** When it stops working by itself; null: not known. */
  expiresAtMs: number | null;
}

/** Where the broker gets values from; the only place that opens them. */
export interface SecretSource {
  /**
   * The newest value. From memory while it is fresh; `minVersion` asks again when what is held is older. Throws
   * `credential_unavailable`, `credential_needs_reauth` or `credential_revoked`, none of which names a value.
   */
  resolve(credentialId: string, options?: { minVersion?: number }): Promise<ResolvedSecret>;
  /** Drops a value, as after an upstream refused it. */
  invalidate(credentialId: string): void;
  /** Tells which session holds what, so that `forget` can drop what nobody else needs. */
  hold(sessionId: string, credentialIds: readonly string[]): void;
  /** Drops every value that only this session held. */
  forget(sessionId: string): void;
  close(): Promise<void>;
}
