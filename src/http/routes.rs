//! Floor 4. Finds the handler that serves a path, once, before the login.
//!
//! The tree is of the kind in which axum finds handlers. What surrounds a request needs the pattern of its path before the login,
//! and a GET of records goes to its handler without a second lookup (see [`RouteMatch`]).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use tower::Service as _;

use crate::domain::schema::{Route, Schema, Shape};
use crate::http::access::caller::Caller;
use crate::http::access::request_body::RequestBody;
use crate::http::error::ApiError;
use crate::http::extract::{PathParams, Pattern};
use crate::http::records::item::ItemTarget;
use crate::http::records::{content, list, read, write};
use crate::http::state::app_state::AppState;

/// Routes while they are put together.
#[derive(Default)]
pub(crate) struct Routes {
    router: Router<Arc<AppState>>,
    places: matchit::Router<Place>,
    patterns: Vec<Pattern>,
}

/// What a pattern stands for.
struct Place {
    pattern: Pattern,
    /// The records that GET shows.
    records: Option<Records>,
}

/// The records behind a row of the schema's routes.
#[derive(Clone, Copy)]
pub(crate) struct Records {
    pub(crate) schema: &'static Schema,
    pub(crate) route: &'static Route,
}

/// Where a request goes once it may.
///
/// A GET of records goes to its handler from here: looked up and called by axum once more it takes 17 µs of processor
/// time instead of 16 (the book of `benches/run`). The router has the same handler for those, and answers HEAD with it.
pub(crate) struct RouteMatch<'a> {
    pub(crate) pattern: Pattern,
    reading: Option<Reading>,
    router: &'a Router,
}

/// Records that a GET is for, and what its path names.
type Reading = (Records, Result<PathParams, ApiError>);

/// What a path leads to.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) pattern: Pattern,
    reading: Option<Reading>,
}

impl RouteMatch<'_> {
    /// The answer of the handler; `caller` is who has logged in.
    pub(crate) async fn answer(
        self,
        node: &Arc<AppState>,
        caller: Option<&Caller>,
        mut request: Request,
    ) -> Response {
        if let (Some((records, params)), Some(caller)) = (self.reading, caller) {
            let read = async { records.read(node, caller, &params?, &request.into_parts().0).await };
            return read.await.into_response();
        }
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller.clone());
        }
        let handled = Box::pin(self.router.clone().call(request));
        match handled.await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl Routes {
    /// Each pattern once.
    pub(crate) fn route(self, pattern: Pattern, methods: MethodRouter<Arc<AppState>>) -> Routes {
        self.add(Place { pattern, records: None }, methods)
    }

    /// The pattern of a row of the schema's routes.
    pub(crate) fn records(self, records: Records, methods: MethodRouter<Arc<AppState>>) -> Routes {
        self.add(Place { pattern: records.route.path, records: Some(records) }, methods)
    }

    fn add(mut self, place: Place, methods: MethodRouter<Arc<AppState>>) -> Routes {
        let pattern = place.pattern;
        self.patterns.push(pattern);
        self.router = self.router.route(pattern, methods);
        // axum has taken the same pattern into the same kind of tree.
        let added = self.places.insert(pattern, place);
        debug_assert!(added.is_ok(), "{pattern}: {added:?}");
        self
    }

    pub(crate) fn finish(self, node: &Arc<AppState>) -> RouteTable {
        let router = self
            .router
            .fallback(|| async { ApiError::NotFound("There is nothing at this path".into()) })
            .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
            .with_state(Arc::clone(node));
        RouteTable { router, places: self.places, patterns: self.patterns }
    }
}

/// All routes.
pub(crate) struct RouteTable {
    router: Router,
    places: matchit::Router<Place>,
    patterns: Vec<Pattern>,
}

/// Routes, and the node that they serve.
pub(crate) struct ServedRoutes {
    pub(crate) node: Arc<AppState>,
    pub(crate) routes: RouteTable,
}

impl RouteTable {
    pub(crate) fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Where the path of a request leads.
    pub(crate) fn find(&self, request: &Request) -> Found {
        let Ok(place) = self.places.at(request.uri().path()) else {
            return Found::default();
        };
        let records = place.value.records.filter(|_| request.method() == Method::GET);
        let reading = records.map(|records| (records, PathParams::of(place.params.iter())));
        Found { pattern: place.value.pattern, reading }
    }

    /// Where a request goes; to the answer for a missing path if no pattern fits.
    pub(crate) fn route_match(&self, found: Found) -> RouteMatch<'_> {
        let Found { pattern, reading } = found;
        RouteMatch { pattern, reading, router: &self.router }
    }
}

impl Records {
    /// What GET answers.
    async fn read(
        self,
        node: &Arc<AppState>,
        caller: &Caller,
        params: &PathParams,
        parts: &Parts,
    ) -> Result<Response, ApiError> {
        let Records { schema, route } = self;
        match route.shape {
            Shape::Item | Shape::ItemOfPerson => {
                read::read(node, &ItemTarget::new(schema, route, params), caller, &parts.headers).await
            }
            // Longer, so not a part of what every read carries along.
            Shape::Collection | Shape::OfPerson | Shape::OfPage => {
                Box::pin(list::list(Arc::clone(node), schema, route, caller, params, parts)).await
            }
            Shape::Content => {
                Box::pin(content::download(node, schema, route, caller, params, &parts.headers)).await
            }
        }
    }

    /// The methods of its path.
    pub(crate) fn methods(self) -> MethodRouter<Arc<AppState>> {
        let Records { schema, route } = self;
        let read = get(
            move |State(node): State<Arc<AppState>>, caller: Caller, params: PathParams, request: Request| async move {
                self.read(&node, &caller, &params, &request.into_parts().0).await
            },
        );
        let write = move |method: Method,
                          State(node): State<Arc<AppState>>,
                          caller: Caller,
                          params: PathParams,
                          headers: HeaderMap,
                          body: RequestBody| async move {
            write::write(&node, &ItemTarget::new(schema, route, &params), &caller, &method, &headers, body)
                .await
        };
        match route.shape {
            Shape::Collection | Shape::OfPerson | Shape::OfPage => read,
            Shape::Item | Shape::ItemOfPerson => read.post(write).patch(write).put(write).delete(write),
            Shape::Content => read.put(
                move |State(node): State<Arc<AppState>>,
                      caller: Caller,
                      params: PathParams,
                      request: Request| async move {
                    content::upload(&node, schema, route, &caller, &params, request).await
                },
            ),
        }
    }
}
