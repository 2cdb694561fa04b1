/** Zod-free: what the repositories of an environment open in its network. */
import type { CloudEnvironment } from './definitions.ts';
import { canonicalHost } from './hosts.ts';
import type { EgressRule } from './networking.ts';

/** The host that a repository is cloned from. */
export function repositoryHost(url: string): string {
  return canonicalHost(new URL(url).hostname) ?? new URL(url).hostname;
}

/** With and without `.git`: servers know a repository by both. */
export function repositoryPaths(url: string): string[] {
  const path = new URL(url).pathname.replace(/\/+$/, '').replace(/\.git$/, '');
  return [path, `${path}.git`];
}

function ruleOf(url: string): EgressRule {
  const paths = repositoryPaths(url).map((path) => `${path}/**`);
  return { host: repositoryHost(url), methods: null, paths, action: 'allow' };
}

const keyOf = ({ host, methods, paths, action }: EgressRule): string => JSON.stringify([host, methods, paths, action]);

/** As a session has it: what is to be cloned can be reached, by a rule for the repository's own paths. */
export function withRepositoryRules(environment: CloudEnvironment): CloudEnvironment {
  const { networking, repositories } = environment;
  if (networking.type === 'unrestricted' || repositories.length === 0) return environment;
  const rules = [...(networking.rules ?? []), ...repositories.map(({ url }) => ruleOf(url))];
  return { ...environment, networking: { ...networking, rules } };
}

/** What the environment itself opens: without those rules. */
export function withoutRepositoryRules({ networking, repositories }: CloudEnvironment): CloudEnvironment['networking'] {
  if (networking.type === 'unrestricted' || networking.rules === undefined) return networking;
  const added = new Set(repositories.map(({ url }) => keyOf(ruleOf(url))));
  const { rules, ...rest } = networking;
  const own = rules.filter((rule) => !added.has(keyOf(rule)));
  return own.length === 0 ? rest : { ...rest, rules: own };
}
