import type { Deployment, Route } from './deployment.ts';
import type { FoundRoute } from './routed-provider.ts';

/** Routes of one origin: those of a team, of the file, of the environment. */
interface Layer {
  exact: ReadonlyMap<string, Route>;
  /** Longest name first: the more exact pattern wins. */
  patterns: readonly Route[];
  aliases: ReadonlyMap<string, string>;
  byId: ReadonlyMap<string, Deployment>;
}

function isPattern(route: Route): boolean {
  return route.name.endsWith('*');
}

/** Compiled routes of one origin. */
export function layerOf(routes: readonly Route[], aliases: Readonly<Record<string, string>> = {}): Layer {
  return {
    exact: new Map(routes.filter((route) => !isPattern(route)).map((route) => [route.name, route])),
    patterns: routes.filter(isPattern).toSorted((a, b) => b.name.length - a.name.length),
    aliases: new Map(Object.entries(aliases)),
    byId: new Map(routes.flatMap((route) => route.deployments.map((each) => [each.id ?? '', each] as const))),
  };
}

interface TableParts {
  /** Seen by its team alone. */
  teams: ReadonlyMap<string, Layer>;
  /** Seen by all, the first that has a name wins; every exact name goes before any pattern. */
  shared: readonly Layer[];
  /** Which models a team may call: every list must allow. */
  allowed: ReadonlyMap<string, readonly (readonly string[])[]>;
}

/** All routes of a gateway at one moment. Never changed: a new configuration is a new table. */
export class RouteTable {
  readonly #parts: TableParts;

  constructor(parts: TableParts) {
    this.#parts = parts;
  }

  /** Who answers for a name a team asks for. */
  find(teamId: string, name: string): FoundRoute | undefined {
    const layers = this.#layersOf(teamId);
    const target = firstOf(layers, (layer) => layer.aliases.get(name)) ?? name;
    const exact = firstOf(layers, (layer) => layer.exact.get(target));
    if (exact !== undefined) return { route: exact, star: target };
    return firstOf(layers, (layer) => {
      const route = layer.patterns.find((pattern) => target.startsWith(pattern.name.slice(0, -1)));
      return route === undefined ? undefined : { route, star: target.slice(route.name.length - 1) };
    });
  }

  /** True when the team's lists allow the name. */
  mayCall(teamId: string, name: string): boolean {
    return (this.#parts.allowed.get(teamId) ?? []).every((list) => isListed(list, name));
  }

  /** Every exact name a team can ask for, and every pattern. */
  names(teamId: string): { exact: string[]; patterns: string[] } {
    const layers = this.#layersOf(teamId);
    return {
      exact: [...new Set(layers.flatMap(({ aliases, exact }) => [...aliases.keys(), ...exact.keys()]))],
      patterns: [...new Set(layers.flatMap((layer) => layer.patterns.map(({ name }) => name)))],
    };
  }

  /** The deployment of that name, as the ledger has it. */
  deployment(teamId: string, id: string): Deployment | undefined {
    return firstOf(this.#layersOf(teamId), (layer) => layer.byId.get(id));
  }

  /** Everybody a team's calls can reach. */
  deployments(teamId: string): Deployment[] {
    const routes = this.#layersOf(teamId).flatMap(({ exact, patterns }) => [...exact.values(), ...patterns]);
    return routes.flatMap(({ deployments }) => deployments);
  }

  #layersOf(teamId: string): readonly Layer[] {
    const own = this.#parts.teams.get(teamId);
    return own === undefined ? this.#parts.shared : [own, ...this.#parts.shared];
  }
}

/** True when a list has the name; an entry may end with `*`. */
export function isListed(list: readonly string[], name: string): boolean {
  return list.some((entry) => (entry.endsWith('*') ? name.startsWith(entry.slice(0, -1)) : entry === name));
}

function firstOf<T, R>(items: readonly T[], look: (item: T) => R | undefined): R | undefined {
  for (const item of items) {
    const found = look(item);
    if (found !== undefined) return found;
  }
  return undefined;
}
