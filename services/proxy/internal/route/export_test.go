package route

// MatchByList is Match without the index.
func (t *Table) MatchByList(in Input) *Route {
	if e := t.domains.find(in.Request.Authority).host.findInList(newQuery(in)); e != nil && len(in.Request.Path) > 0 {
		return e.choose(in)
	}
	return nil
}
