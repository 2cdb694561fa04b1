import { LonghaulError } from '../../contracts/error-codes.ts';
import { PRICED_MODELS } from '../../contracts/prices.ts';
import type { Pool } from '../../db/pool.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { GatewayConfig } from '../config.ts';
import type { Protocol } from '../protocol.ts';
import { UpstreamPools } from '../providers/pools.ts';
import type { Provider, ProviderRequest, Served } from '../providers/port.ts';
import type { Candidate } from './attempt.ts';
import { RouteCompiler } from './compile.ts';
import type { Deployment } from './deployment.ts';
import { RouteSource } from './route-source.ts';
import { candidatesOf, RoutedProvider, type FoundRoute } from './routed-provider.ts';

interface RouterDeps {
  pool: Pool;
  config: GatewayConfig;
  logger: Logger;
  scripted: Provider | undefined;
}

/** What is asked of a route. */
interface Wanted extends Pick<ProviderRequest, 'protocol' | 'operation'> {
  teamId: string;
  model: string;
  isStream: boolean;
}

/** Who is to answer: `provider` stands for all attempts, the rest describes the first choice. */
export interface RoutePlan {
  provider: Provider;
  model: string;
  modelDeployment: string | null;
  /** Everybody who may come to answer, the first choice included: budgets hold money for the dearest. */
  targets: readonly Served[];
}

const PATHS: Readonly<Record<Protocol, string>> = {
  messages: '/v1/messages',
  chat: '/v1/chat/completions',
  responses: '/v1/responses',
  gemini: '/v1beta/models/{model}:generateContent',
};

/** Finds out who answers for a model: environment, file and database, as they are at this moment. */
export class Router {
  readonly #config: GatewayConfig;
  readonly #pools = new UpstreamPools();
  readonly #source: RouteSource;

  constructor({ pool, config, logger, scripted }: RouterDeps) {
    this.#config = config;
    const compiler = new RouteCompiler({ config, pools: this.#pools, scripted });
    this.#source = new RouteSource({ pool, config, logger, compiler });
  }

  /** Resolves when the configuration has been read once, or could not be; from then on nothing waits for it. */
  get ready(): Promise<void> {
    return this.#source.ready;
  }

  /** What is wrong with the configuration; empty when nothing is. */
  get problems(): readonly string[] {
    return this.#source.problems;
  }

  /** Who answers for this request; a name nobody answers for, or not in this protocol, is refused. */
  plan(wanted: Wanted): RoutePlan {
    const { table } = this.#source;
    const { teamId, model } = wanted;
    const asked = table.find(teamId, model);
    if (asked === undefined) {
      throw new LonghaulError('model_not_found', `no provider is configured for model "${model}"`, { field: 'model' });
    }
    if (!table.mayCall(teamId, model)) {
      throw new LonghaulError('model_not_allowed', `this team may not call "${model}"`);
    }
    const find = (name: string): FoundRoute | undefined => table.find(teamId, name);
    const candidates = everyCandidate(asked, find, wanted);
    const primary = firstCandidate(candidates, asked, wanted);
    const options = { asked, find, isStream: wanted.isStream, timeouts: this.#config.timeouts };
    return {
      provider: new RoutedProvider(options, primary),
      model: primary.model,
      modelDeployment: primary.deployment.id,
      targets: candidates.map(({ deployment, model: asModel }) => ({
        deployment: deployment.id,
        provider: deployment.providerName,
        model: asModel,
      })),
    };
  }

  /** Who gave an answer that is kept; undefined when that deployment is not configured any more. */
  providerOf(given: {
    attribution: { teamId: string };
    provider: string;
    deployment: string | null;
    requestedModel: string;
  }): Provider | undefined {
    const { teamId } = given.attribution;
    const isTheOne = ({ id, providerName, problem }: Deployment): boolean =>
      id === given.deployment && providerName === given.provider && problem === undefined;
    const asked = this.#source.table.find(teamId, given.requestedModel)?.route.deployments.find(isTheOne);
    // The name may stand for somebody else by now, or a fallback answered.
    return (asked ?? this.#source.table.deployments(teamId).find(isTheOne))?.provider();
  }

  /** The price a deployment of the team was configured with. */
  priceOf(teamId: string, deployment: string): Deployment['price'] {
    return this.#source.table.deployment(teamId, deployment)?.price;
  }

  /** Models a team can ask for, with who answers; those of one protocol alone where it is named. */
  models(teamId: string, protocol?: Protocol): { id: string; provider: string }[] {
    const { table } = this.#source;
    const { exact, patterns } = table.names(teamId);
    // A lone asterisk takes everything: no list of names follows from it.
    const prefixes = patterns.filter((pattern) => pattern !== '*').map((pattern) => pattern.slice(0, -1));
    const expanded = PRICED_MODELS.filter((id) => prefixes.some((prefix) => id.startsWith(prefix)));
    return [...new Set([...exact, ...expanded])].flatMap((id) => {
      const answering = table.find(teamId, id)?.route.deployments ?? [];
      const first = answering.find(({ speaks }) => protocol === undefined || speaks(protocol, 'generate'));
      return first === undefined || !table.mayCall(teamId, id) ? [] : [{ id, provider: first.providerName }];
    });
  }

  async close(): Promise<void> {
    await this.#source.close();
    await this.#pools.close();
  }
}

type Find = (name: string) => FoundRoute | undefined;

/** Everybody who could answer, here or in a fallback. */
function everyCandidate(asked: FoundRoute, find: Find, wanted: Wanted): Candidate[] {
  const fallbacks = Object.values(asked.route.fallbacks).flat();
  const all = [asked, ...fallbacks.flatMap((name) => find(name) ?? [])];
  return all.flatMap((found) => candidatesOf(found, wanted));
}

/** The first who could answer; says why when nobody could. */
function firstCandidate(candidates: readonly Candidate[], asked: FoundRoute, wanted: Wanted): Candidate {
  const [candidate] = candidates;
  if (candidate !== undefined) return candidate;
  const { deployments } = asked.route;
  if (deployments.some(({ speaks }) => speaks(wanted.protocol, wanted.operation))) throw unusable(wanted, deployments);
  throw wrongProtocol(wanted, deployments);
}

function unusable({ model }: Wanted, deployments: readonly Deployment[]): LonghaulError {
  const problems = [...new Set(deployments.flatMap(({ problem }) => problem ?? []))];
  return new LonghaulError('provider_auth', `nobody can be asked for "${model}": ${problems.join('; ')}`);
}

function wrongProtocol({ model, protocol, operation }: Wanted, deployments: readonly Deployment[]): LonghaulError {
  const isSpoken = (path: Protocol): boolean => deployments.some(({ speaks }) => speaks(path, 'generate'));
  const paths = (['messages', 'chat', 'responses', 'gemini'] as const).filter(isSpoken).map((path) => PATHS[path]);
  const message =
    operation === 'count_tokens' && isSpoken(protocol)
      ? `the provider of "${model}" does not count tokens`
      : `model "${model}" is served on ${paths.join(' or ')}`;
  return new LonghaulError('model_not_found', message, { field: 'model' });
}
