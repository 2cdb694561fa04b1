import type { SessionCredential } from '../../contracts/credentials.ts';
import { LonghaulError } from '../../contracts/error-codes.ts';
import type { EgressSession } from '../../db/queries/egress-policies.ts';
import { loadEgressProgram, loadEgressSession } from '../../db/queries/egress-policies.ts';
import { listSessionCredentials } from '../../db/queries/session-credentials.ts';
import type { Pool } from '../../db/pool.ts';
import { ValueMatcher } from '../../telemetry/values.ts';
import { ownerOf, type SandboxIdentity } from '../decision.ts';
import type { SecretSource } from '../../vault/source.ts';
import type { CompileOptions } from './compile.ts';
import { SessionPolicy } from './compile.ts';

const KEPT_VERSIONS = 3;
const ASK_AGAIN_MS = 30_000;

/** What the broker holds of one session: its policy, its credentials, and values as long as it lives. */
export class SessionState {
  /** Of the session, or of the sandbox that has none. */
  readonly ownerId: string;
  teamId = '';
  /** null: a sandbox of an E2B program. */
  session: EgressSession | null = null;
  /** What would change the rules if it changed. */
  rules = '';
  policy!: SessionPolicy;
  credentials: SessionCredential[] = [];
  isOver = false;
  requests = 0;
  loadedAtMs = 0;
  readonly #secrets: SecretSource;
  /** Values by credential, newest last: one that was replaced is secret still. */
  readonly #values = new Map<string, string[]>();
  #matcher: ValueMatcher | undefined;
  #refusedAtMs = 0;
  #isProgram = false;

  private constructor(ownerId: string, secrets: SecretSource) {
    this.ownerId = ownerId;
    this.#secrets = secrets;
  }

  static async load(
    pool: Pool,
    sandbox: SandboxIdentity,
    secrets: SecretSource,
    options: CompileOptions,
  ): Promise<SessionState> {
    const state = new SessionState(ownerOf(sandbox), secrets);
    state.#isProgram = sandbox.sessionId === null;
    state.requests = await state.reload(pool, options);
    return state;
  }

  /** Returns how many requests were made before. */
  async reload(pool: Pool, options: CompileOptions): Promise<number> {
    return this.#isProgram ? this.#reloadProgram(pool, options) : this.#reloadSession(pool, options);
  }

  async #reloadProgram(pool: Pool, options: CompileOptions): Promise<number> {
    const program = await loadEgressProgram(pool, this.ownerId);
    if (program === undefined) throw new LonghaulError('not_found', `sandbox ${this.ownerId} does not exist`);
    this.teamId = program.teamId;
    this.policy = SessionPolicy.ofProgram(program, options);
    this.rules = JSON.stringify([program.teamPolicy, program.egress]);
    this.isOver ||= program.state === 'ended';
    this.loadedAtMs = Date.now();
    return program.requests;
  }

  async #reloadSession(pool: Pool, options: CompileOptions): Promise<number> {
    const [session, credentials] = await Promise.all([
      loadEgressSession(pool, this.ownerId),
      listSessionCredentials(pool, this.ownerId),
    ]);
    if (session === undefined) throw new LonghaulError('not_found', `session ${this.ownerId} does not exist`);
    this.session = session;
    this.teamId = session.teamId;
    this.policy = SessionPolicy.ofSession(session, options);
    // The rest of the rules is fixed for the session's life.
    this.rules = JSON.stringify(session.teamPolicy);
    // Made anew only for new placeholders: it is dear, and sessions are read again all the time.
    if (standInsOf(credentials) !== standInsOf(this.credentials)) this.#matcher = undefined;
    this.credentials = credentials;
    this.isOver ||= session.status === 'terminated';
    this.loadedAtMs = Date.now();
    this.#secrets.hold(
      this.ownerId,
      this.live.map((credential) => credential.credentialId),
    );
    return session.requests;
  }

  get live(): SessionCredential[] {
    return this.isOver ? [] : this.credentials.filter((credential) => credential.revokedAt === null);
  }

  /** The value for one use, from the source; it is remembered, so that it is found when it comes back. */
  async resolve(credential: SessionCredential): Promise<string> {
    const { value } = await this.#secrets.resolve(credential.credentialId, { minVersion: credential.version });
    this.#remember(credential.credentialId, value);
    return value;
  }

  /** Upstream did not take the value: the next use asks for it anew, but a sandbox cannot make that happen all the time. */
  refused(credentials: readonly SessionCredential[]): void {
    if (Date.now() - this.#refusedAtMs < ASK_AGAIN_MS) return;
    this.#refusedAtMs = Date.now();
    for (const { credentialId } of credentials) this.#secrets.invalidate(credentialId);
  }

  /**
   * Values of all credentials. One that nobody can get any more (revoked, to be authorised anew) is left out; a source that
   * is only away is an error, unless the value cannot have come to the session: `wasUsed`.
   */
  async resolveAll(wasUsed: (name: string) => Promise<boolean> = () => Promise.resolve(true)): Promise<void> {
    await Promise.all(
      this.credentials.map(async (credential) => {
        try {
          await this.resolve(credential);
        } catch (error) {
          const isAway = !(error instanceof LonghaulError) || error.retryable;
          if (isAway && credential.revokedAt === null && (await wasUsed(credential.name))) throw error;
        }
      }),
    );
  }

  /** Finds every value that is held. */
  get matcher(): ValueMatcher {
    this.#matcher ??= new ValueMatcher(
      this.credentials.flatMap((credential) =>
        (this.#values.get(credential.credentialId) ?? []).map((value) => ({ value, standIn: credential.placeholder })),
      ),
    );
    return this.#matcher;
  }

  /** The session ended: no value is held any more. */
  forget(): void {
    this.isOver = true;
    this.#values.clear();
    this.#matcher = undefined;
    this.#secrets.forget(this.ownerId);
  }

  #remember(credentialId: string, value: string): void {
    const known = this.#values.get(credentialId) ?? [];
    if (known.at(-1) === value) return;
    this.#values.set(credentialId, [...known.filter((one) => one !== value), value].slice(-KEPT_VERSIONS));
    this.#matcher = undefined;
  }
}

function standInsOf(credentials: readonly SessionCredential[]): string {
  return credentials.map(({ credentialId, placeholder }) => `${credentialId} ${placeholder}`).join('\n');
}
