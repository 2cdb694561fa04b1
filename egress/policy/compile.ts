import { canonicalHost, hostMatches } from '../../contracts/hosts.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Networking } from '../../contracts/networking.ts';
import type { EgressProgram, EgressSession, TeamEgressPolicy } from '../../db/queries/egress-policies.ts';
import { OpenAddresses } from './addresses.ts';
import { ProgramRules } from './program.ts';
import type { Asked, Rule, Verdict } from './rules.ts';
import { allowHost, namedRule, RuleList } from './rules.ts';

/** Hosts every sandbox may reach because a part of the product needs it: the gateway, for harnesses that run inside. */
export interface InternalTarget {
  host: string;
  port: number;
}

export interface CompileOptions {
  packageHosts: readonly string[];
  internalTargets: readonly InternalTarget[];
}

/** What a request comes to. */
export type Decision =
  | { action: 'allow' | 'deny' | 'ask'; rule: string; subject: string; isInternal: boolean }
  | { action: 'ambiguous'; rule: string };

/** The network policy of one session, compiled from its environment and its team. */
export class SessionPolicy {
  readonly maxRequestBytes: number;
  readonly maxRequests: number;
  readonly open: OpenAddresses;
  readonly #team: RuleList;
  readonly #own: Pick<RuleList, 'decide' | 'decideHost'>;
  readonly #program: ProgramRules | null;
  readonly #unmatched: 'allow' | 'deny' | 'ask';
  readonly #passthrough: readonly string[];
  readonly #internal: readonly InternalTarget[];

  private constructor(
    networking: Networking,
    teamPolicy: TeamEgressPolicy | null,
    own: Pick<RuleList, 'decide' | 'decideHost'>,
    options: CompileOptions & { program?: ProgramRules },
  ) {
    const limited = networking.type === 'limited' ? networking : undefined;
    this.#program = options.program ?? null;
    this.maxRequestBytes = limited?.max_request_bytes ?? LIMITS.egressRequestBytes;
    this.maxRequests = limited?.max_requests ?? LIMITS.egressRequests;
    this.open = new OpenAddresses(limited?.private_addresses ?? []);
    this.#team = new RuleList((teamPolicy?.rules ?? []).map((rule, index) => namedRule(rule, 'team', index)));
    this.#own = own;
    this.#unmatched = limited === undefined ? 'allow' : (limited.unmatched ?? 'deny');
    this.#passthrough = limited?.tls_passthrough_hosts ?? [];
    this.#internal = options.internalTargets;
  }

  static ofSession(session: EgressSession, options: CompileOptions): SessionPolicy {
    const networking = networkingOf(session);
    const own = new RuleList(networking.type === 'limited' ? ownRules(networking, session, options) : []);
    return new SessionPolicy(networking, session.teamPolicy, own, options);
  }

  /** The same for a sandbox of an E2B program: private addresses are never opened. */
  static ofProgram({ egress, teamPolicy }: EgressProgram, options: CompileOptions): SessionPolicy {
    const program = new ProgramRules(egress);
    const own = {
      decide: (asked: Asked) => program.decide(asked),
      decideHost: (host: string, port: number) => program.decide({ host, port }),
    };
    const networking: Networking = program.isOpen ? { type: 'unrestricted' } : NOTHING;
    return new SessionPolicy(networking, teamPolicy, own, { ...options, program });
  }

  /** Of a public address that a name resolved to. */
  isDeniedAddress(address: string, host: string): boolean {
    return this.#program?.isDenied(address, host) ?? false;
  }

  /** Whoever may change what is not allowed, in words. */
  get remedy(): string {
    return this.#program === null
      ? 'is not in the allowed hosts of this environment. Whoever owns the environment can add it to networking.allowed_hosts, or set networking.unmatched to ask.'
      : 'is not allowed for this sandbox. The program that makes it can name it in network.allowOut.';
  }

  decide(asked: Asked): Decision {
    if (this.isInternal(asked.host, asked.port)) return internal(asked);
    return this.#conclude(asked, this.#team.decide(asked), () => this.#own.decide(asked));
  }

  /** The same for a tunnel whose requests are not read: rules about methods and paths cannot hold there. */
  decideTunnel(host: string, port: number): Decision {
    const asked = { host, port, method: 'CONNECT', path: '/' };
    return this.#conclude(asked, this.#team.decideHost(host, port), () => this.#own.decideHost(host, port));
  }

  isPassthrough(host: string): boolean {
    return this.#passthrough.some((pattern) => hostMatches(pattern, host));
  }

  isInternal(host: string, port: number): boolean {
    return this.#internal.some((target) => target.host === host && target.port === port);
  }

  #conclude(asked: Asked, team: Verdict, own: () => Verdict): Decision {
    const verdict = team.action === 'unmatched' ? own() : team;
    const place = `${asked.host}:${asked.port}`;
    switch (verdict.action) {
      case 'ambiguous':
        return { action: 'ambiguous', rule: 'path' };
      case 'unmatched':
        return { action: this.#unmatched, rule: 'unmatched', subject: place, isInternal: false };
      default:
        return {
          action: verdict.action,
          rule: verdict.rule.name,
          subject: subjectOf(place, verdict.rule),
          isInternal: false,
        };
    }
  }
}

function internal(asked: Asked): Decision {
  return { action: 'allow', rule: 'internal', subject: `${asked.host}:${asked.port}`, isInternal: true };
}

/** What a question is about: the host, or what the rule that asks says of it. */
function subjectOf(place: string, rule: Rule): string {
  const parts = [
    place,
    rule.methods === null ? '' : rule.methods.join(','),
    rule.paths === null ? '' : rule.paths.join(','),
  ];
  return parts
    .filter((part) => part !== '')
    .join(' ')
    .slice(0, 1_000);
}

const NOTHING: Networking = {
  type: 'limited',
  allowed_hosts: [],
  allow_mcp_servers: false,
  allow_package_managers: false,
};

function networkingOf(session: EgressSession): Networking {
  const { environment } = session;
  // Rows of the first release may lack it: nothing said is nothing allowed.
  const given = environment.type === 'cloud' ? (environment.networking as Networking | undefined) : undefined;
  return given ?? NOTHING;
}

function ownRules(
  networking: Extract<Networking, { type: 'limited' }>,
  session: EgressSession,
  options: CompileOptions,
): Rule[] {
  const rules = (networking.rules ?? []).map((rule, index) => namedRule(rule, 'environment', index));
  for (const host of networking.allowed_hosts) rules.push(allowHost(host, `allowed_hosts: ${host}`));
  for (const host of networking.tls_passthrough_hosts ?? [])
    rules.push(allowHost(host, `tls_passthrough_hosts: ${host}`));
  if (networking.allow_package_managers) {
    for (const host of options.packageHosts) rules.push(allowHost(host, 'allow_package_managers'));
  }
  if (networking.allow_mcp_servers) rules.push(...mcpRules(session));
  return rules;
}

/** The servers of the agent, each at its own port. */
function mcpRules(session: EgressSession): Rule[] {
  return (session.agent.mcp_servers ?? []).flatMap(({ name, url }) => {
    if (!URL.canParse(url)) return [];
    const { hostname, port, protocol } = new URL(url);
    const host = canonicalHost(hostname);
    if (host === undefined) return [];
    const number = port === '' ? (protocol === 'http:' ? 80 : 443) : Number(port);
    return [allowHost(host, `allow_mcp_servers: ${name}`, number)];
  });
}
