import type { ModelDeployment, ModelRouteSpec } from '../../contracts/model-routes.ts';
import { isHostAllowed } from '../../contracts/provider-credentials.ts';
import { ROUTE_DEFAULTS } from '../../contracts/routing.ts';
import type { GatewayConfig } from '../config.ts';
import { createProvider, credentialRefsOf, endpointOf, speaks } from '../providers/create-provider.ts';
import type { UpstreamPools } from '../providers/pools.ts';
import type { Provider } from '../providers/port.ts';
import { DeploymentHealth, type Deployment, type Route } from './deployment.ts';

interface CompilerParts {
  config: GatewayConfig;
  pools: UpstreamPools;
  scripted: Provider | undefined;
}

/** Who wrote a route: the operator, who may do everything, or a team over the API. */
export type RouteOrigin = { kind: 'operator' } | { kind: 'team'; teamId: string };

/**
 * Makes routes of their descriptions. Providers and health of a deployment that is the same as before are kept, so a
 * new configuration cuts no connection and forgets nothing.
 */
export class RouteCompiler {
  readonly #parts: CompilerParts;
  #kept = new Map<string, { provider: () => Provider; health: DeploymentHealth }>();
  #used = new Map<string, { provider: () => Provider; health: DeploymentHealth }>();

  constructor(parts: CompilerParts) {
    this.#parts = parts;
  }

  compile(spec: ModelRouteSpec, origin: RouteOrigin): Route {
    return {
      name: spec.name,
      deployments: spec.deployments.map((deployment, index) =>
        this.deployment(deployment, deployment.id ?? `${spec.name}/${index + 1}`, origin),
      ),
      strategy: spec.strategy ?? ROUTE_DEFAULTS.strategy,
      fallbacks: spec.fallbacks ?? {},
      retries: spec.retries ?? ROUTE_DEFAULTS.retries,
      allowedFails: spec.allowed_fails ?? ROUTE_DEFAULTS.allowedFails,
      cooldownMs: spec.cooldown_ms ?? ROUTE_DEFAULTS.cooldownMs,
    };
  }

  /** One deployment; `id` null for an upstream of the environment. */
  deployment(spec: ModelDeployment, id: string | null, origin: RouteOrigin): Deployment {
    const { weight, ...identity } = spec;
    const key = JSON.stringify([origin, identity]);
    const known = this.#used.get(key) ??
      this.#kept.get(key) ?? { provider: this.#lazy(spec), health: new DeploymentHealth() };
    this.#used.set(key, known);
    return {
      id,
      providerName: spec.provider,
      model: spec.model,
      weight: weight ?? 1,
      timeoutMs: spec.timeout_ms,
      firstByteTimeoutMs: spec.first_byte_timeout_ms,
      price: spec.price,
      speaks: (protocol, operation) => speaks(spec, protocol, operation),
      ...known,
      problem: this.#problemOf(spec, origin),
    };
  }

  /** Everything that was not compiled since the last call is let go. */
  finish(): void {
    this.#kept = this.#used;
    this.#used = new Map();
  }

  #lazy(spec: ModelDeployment): () => Provider {
    let provider: Provider | undefined;
    const { pools, scripted, config } = this.#parts;
    return () => {
      provider ??= createProvider(spec, { pools, scripted, secret: (ref) => config.credentials.resolve(ref) });
      return provider;
    };
  }

  #problemOf(spec: ModelDeployment, origin: RouteOrigin): string | undefined {
    const { config, scripted } = this.#parts;
    if (spec.provider === 'scripted') return scripted === undefined ? 'the scripted model is switched off' : undefined;
    const url = endpointOf(spec);
    if (origin.kind === 'team' && 'base_url' in spec && url !== undefined && !isHostAllowed(url, config.routeHosts)) {
      return `routes of teams may not go to ${new URL(url).host}`;
    }
    for (const [, ref] of credentialRefsOf(spec)) {
      const name = ref.slice('env:'.length);
      const refusal = origin.kind === 'team' ? config.credentials.whyNot(name, url) : undefined;
      if (refusal !== undefined) return refusal;
      if (config.credentials.get(name) === undefined) return `the variable ${name} is not set`;
    }
    return undefined;
  }
}
