import type { z } from 'zod';
import type { budgetCreate, budgetEvent, budgetPool, budgetUpdate } from '../contracts/budgets.ts';
import type {
  modelPolicy,
  modelPolicyUpdate,
  modelRoute,
  modelRouteParam,
  modelRouteUpdate,
} from '../contracts/model-routes.ts';
import type { Http, Query } from './http.ts';
import { type Deleted, type Paged, pathsOf } from './paths.ts';

/** Pools of money that keys and teams share. */
export function budgetsOf(http: Http) {
  const at = pathsOf('budgets');
  return {
    create: (body: z.input<typeof budgetCreate>) => http.post<z.infer<typeof budgetPool>>('/v1/budgets', body),
    get: (id: string) => http.get<z.infer<typeof budgetPool>>(at(id)),
    list: (query: Query = {}) => http.get<Paged<z.infer<typeof budgetPool>>>('/v1/budgets', query),
    update: (id: string, body: z.input<typeof budgetUpdate>) => http.post<z.infer<typeof budgetPool>>(at(id), body),
    archive: (id: string) => http.post<z.infer<typeof budgetPool>>(at(id, '/archive')),
    events: (id: string, query: Query = {}) => http.get<Paged<z.infer<typeof budgetEvent>>>(at(id, '/events'), query),
  };
}

/** Which provider a model name leads to. */
export function modelRoutesOf(http: Http) {
  const at = pathsOf('model-routes');
  return {
    create: (body: z.input<typeof modelRouteParam>) => http.post<z.infer<typeof modelRoute>>('/v1/model-routes', body),
    get: (id: string) => http.get<z.infer<typeof modelRoute>>(at(id)),
    list: (query: Query = {}) => http.get<Paged<z.infer<typeof modelRoute>>>('/v1/model-routes', query),
    update: (id: string, body: z.input<typeof modelRouteUpdate>) => http.post<z.infer<typeof modelRoute>>(at(id), body),
    delete: (id: string) => http.delete<Deleted>(at(id)),
  };
}

/** Which models the team may use. */
export function modelPolicyOf(http: Http) {
  return {
    get: () => http.get<z.infer<typeof modelPolicy>>('/v1/model-policy'),
    update: (body: z.input<typeof modelPolicyUpdate>) =>
      http.post<z.infer<typeof modelPolicy>>('/v1/model-policy', body),
  };
}
