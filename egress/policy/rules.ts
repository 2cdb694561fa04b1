import { hostMatches } from '../../contracts/hosts.ts';
import type { EgressRule } from '../../contracts/networking.ts';
import { canonicalPath, pathMatches } from './paths.ts';

/** One compiled rule. `name` is what the audit shows. */
export interface Rule extends EgressRule {
  name: string;
  /** null: any. */
  port: number | null;
}

/** A request as rules see it. */
export interface Asked {
  host: string;
  port: number;
  method: string;
  /** As sent. */
  path: string;
}

export type Verdict =
  { action: 'allow' | 'deny' | 'ask'; rule: Rule } | { action: 'ambiguous' } | { action: 'unmatched' };

/** Rules in the order in which they are tried: the most specific first, and of two alike the stricter. */
export class RuleList {
  readonly #rules: Rule[];

  constructor(rules: readonly Rule[]) {
    this.#rules = rules.toSorted((a, b) => weight(b) - weight(a) || strictness(b) - strictness(a));
  }

  /** The first that fits. A path with two readings fits nothing, and is refused where a rule looks at paths. */
  decide(asked: Asked): Verdict {
    let path: string | undefined | null = null;
    for (const rule of this.#rules) {
      if (!hostMatches(rule.host, asked.host)) continue;
      if (rule.port !== null && rule.port !== asked.port) continue;
      if (rule.methods !== null && !rule.methods.includes(asked.method.toUpperCase())) continue;
      if (rule.paths !== null) {
        path ??= canonicalPath(asked.path);
        if (path === undefined) return { action: 'ambiguous' };
        const canonical = path;
        if (!rule.paths.some((glob) => pathMatches(glob, canonical))) continue;
      }
      return { action: rule.action, rule };
    }
    return { action: 'unmatched' };
  }

  /** What the rules say of a host before method and path are known; a rule that looks at them says nothing. */
  decideHost(host: string, port: number): Verdict {
    const rule = this.#rules.find(
      (one) =>
        one.methods === null &&
        one.paths === null &&
        hostMatches(one.host, host) &&
        (one.port === null || one.port === port),
    );
    return rule === undefined ? { action: 'unmatched' } : { action: rule.action, rule };
  }
}

function weight(rule: Rule): number {
  const host = rule.host.startsWith('*.') ? rule.host.length : 1_000;
  const path = Math.max(0, ...(rule.paths ?? []).map((glob) => glob.replaceAll('*', '').length + 1));
  return (
    host * 1_000_000 + Math.min(path, 99_999) * 10 + (rule.port === null ? 0 : 2) + (rule.methods === null ? 0 : 1)
  );
}

function strictness(rule: Rule): number {
  switch (rule.action) {
    case 'deny':
      return 2;
    case 'ask':
      return 1;
    case 'allow':
      return 0;
  }
}

/** A rule of a client or a team, with a name for people. */
export function namedRule(rule: EgressRule, where: string, index: number): Rule {
  return { ...rule, name: `${where}.rules[${index}]`, port: null };
}

/** A host that may be reached, whatever is asked of it. */
export function allowHost(host: string, name: string, port: number | null = null): Rule {
  return { host, methods: null, paths: null, action: 'allow', name, port };
}
