from nnlite.cli import main

raise SystemExit(main())
