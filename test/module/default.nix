# Cases for `lib.runTests`: the modules under the real module system.
{ lib }:
let
  stubs = import ./stubs.nix { inherit lib; };
  inherit (stubs) evaluate home manifest;

  fails = modules: !(builtins.tryEval (builtins.deepSeq (manifest modules) null)).success;
  problems = modules: (manifest modules).problems;
  everything = import ./everything.nix;

  alice = home [
    {
      lollypops.secrets.cmd-name-prefix = "users/alice/";
      lollypops.secrets.files.ntfy.restart-units = [ "nginx.service" ];
    }
  ];

  foreign.lollypops.secrets.files.db.owner = "postgres";
  owners =
    modules:
    let
      inherit (stubs.system modules) config;
    in
    {
      snippets = config.system.activationScripts;
      inherit (config.systemd) services;
    };
  users = {
    inherit alice;
    bob = home [ ];
    carol = { };
  };
in
{
  testDefaults = {
    expr = manifest [ ];
    expected = {
      schema = 1;
      deployment = {
        local = false;
        local-evaluation = false;
        deploy-method = "auto";
        config-dir = "/var/src/lollypops";
        group = null;
        groups = [ ];
        order = 0;
        build-on = "target";
        specialisation = null;
        guard = {
          enable = true;
          confirm-timeout = 60;
          activation-timeout = 600;
          on-failed-units = "rollback";
          ignore-units = [ "*-wait-online.service" ];
        };
        health-checks = { };
        sudo = {
          enable = false;
          command = "sudo";
          opts = [ ];
          password-command = null;
        };
        ssh = {
          command = "ssh";
          opts = [ ];
          host = "web1";
          user = null;
          port = null;
          identity-file = null;
          jump-host = null;
          host-key = null;
          confirm-host = null;
          multiplex = true;
        };
      };
      secrets = {
        default-cmd = "pass";
        cmd-name-prefix = "";
        default-dir = "/var/src/lollypops-secrets";
        prune = false;
        files = { };
      };
      tasks = [
        "deploy-flake"
        "deploy-secrets"
        "rebuild"
      ];
      extraTasks = { };
      problems = [ ];
    };
  };

  testEveryOption = {
    expr = manifest [ { lollypops = everything; } ];
    expected = everything // {
      schema = 1;
      problems = [ ];
    };
  };

  testHealthCheckDefaults = {
    expr =
      (manifest [ { lollypops.deployment.health-checks.web.command = "true"; } ])
      .deployment.health-checks;
    expected.web = {
      command = "true";
      on = "target";
      timeout = 10;
      retries = 3;
    };
  };

  testBuildsWhereItEvaluates = {
    expr = (manifest [ { lollypops.deployment.local-evaluation = true; } ]).deployment.build-on;
    expected = "local";
  };

  testBuildsElsewhereOnlyWhatIsEvaluatedHere = {
    expr = map (deployment: problems [ { lollypops = { inherit deployment; }; } ]) [
      { build-on = "local"; }
      {
        build-on = "target";
        local-evaluation = true;
      }
      {
        build-on = "build.example.org";
        local-evaluation = true;
      }
    ];
    expected = [
      [ "lollypops.deployment.build-on = \"local\" needs local-evaluation." ]
      [ ]
      [ ]
    ];
  };

  # Within a specialisation there is none.
  testUnknownSpecialisation = {
    expr =
      map
        (
          names:
          problems [
            {
              options.specialisation = lib.mkOption { type = lib.types.raw; };
              config.specialisation = lib.genAttrs names (_: throw "the specialisation was evaluated");
              config.lollypops.deployment.specialisation = "hardened";
            }
          ]
        )
        [
          [ "hardened" ]
          [ ]
          [
            "gaming"
            "hard"
          ]
        ];
    expected = [
      [ ]
      [ ]
      [
        (
          "lollypops.deployment.specialisation names \"hardened\", which the system does not have"
          + " (it has gaming, hard)."
        )
      ]
    ];
  };

  # What commands name in the store comes with the system, if that is where they run.
  testHealthChecksAreInTheSystem = {
    expr =
      let
        tool = builtins.toFile "tool" "";
        dependencies =
          health-checks:
          (stubs.system [ { lollypops.deployment = { inherit health-checks; }; } ])
          .config.system.extraDependencies;
      in
      map
        (
          checks:
          map (text: text // { text = lib.replaceStrings [ tool ] [ "TOOL" ] text.text; }) (
            dependencies checks
          )
        )
        [
          { a.command = "true"; }
          {
            a.command = "${tool} a";
            a.on = "control";
          }
          {
            a.command = "${tool} a";
            b.command = "b";
            c.command = "${tool} c";
            c.on = "control";
          }
        ];
    expected = [
      [ ]
      [ ]
      [
        {
          name = "lollypops-health-checks";
          text = "TOOL a\nb\n";
        }
      ]
    ];
  };

  testSecretDefaults = {
    expr =
      (manifest [
        {
          lollypops.secrets.default-cmd = "vault read";
          lollypops.secrets.cmd-name-prefix = "my hosts/";
          lollypops.secrets.files."nextcloud/admin" = { };
        }
      ]).secrets.files;
    expected."nextcloud/admin" = {
      name = "nextcloud/admin";
      vault-name = "my hosts/nextcloud/admin";
      cmd = "vault read 'my hosts/nextcloud/admin'";
      path = "/var/src/lollypops-secrets/nextcloud/admin";
      mode = "0400";
      owner = "root";
      group-name = null;
      restart-units = [ ];
      reload-units = [ ];
      when = "before";
      allow-empty = false;
      in-initrd = false;
    };
  };

  testPlainNameIsNotQuoted = {
    expr = (manifest [ { lollypops.secrets.files.db = { }; } ]).secrets.files.db.cmd;
    expected = "pass db";
  };

  testGroupDefaultMeansNone = {
    expr = (manifest [ { lollypops.deployment.group = "default"; } ]).deployment.group;
    expected = null;
  };

  testDefinitionsMerge = {
    expr =
      let
        task = {
          lollypops.deployment.ssh.opts = [ "-A" ];
          lollypops.extraTasks.x.cmds = [ "one" ];
        };
        more = {
          lollypops.extraTasks.x.cmds = [ { task = "rebuild"; } ];
          lollypops.extraTasks.x.vars.N = 1;
        };
        data = manifest [
          task
          more
        ];
      in
      {
        inherit (data.deployment.ssh) opts;
        inherit (data.extraTasks) x;
      };
    expected = {
      opts = [ "-A" ];
      x.cmds = [
        "one"
        { task = "rebuild"; }
      ];
      x.vars.N = 1;
    };
  };

  testImportedTwice = {
    expr = (manifest [ (import ../../nix/nixos.nix) ]).secrets.files;
    expected = { };
  };

  # The manifest never evaluates `pkgs`: the one of `evaluate` throws.
  testSshScripts = {
    expr =
      let
        evaluated = lib.evalModules {
          specialArgs.pkgs = stubs.pkgs;
          modules = [
            (import ../../nix/nixos.nix)
            stubs.base
            {
              lollypops.deployment.sudo.enable = true;
              lollypops.deployment.ssh.user = "ops";
              lollypops.deployment.ssh.opts = [ "-i/keys/$USER \${X}$(id)" ];
              lollypops.deployment.ssh.port = 2222;
              lollypops.deployment.ssh.identity-file = "~/.ssh/$USER key";
              lollypops.deployment.ssh.jump-host = "ops@[2001:db8::1]";
            }
          ];
        };
        inherit (evaluated.config.lollypops.deployment) ssh;
      in
      [
        ssh.login.text
        ssh.run.text
      ];
    expected = [
      "exec ssh -i/keys/\"$USER\"' '\"\${X}\"'$(id)' -p 2222 -i '~/.ssh/'\"$USER\"' key' -o IdentitiesOnly=yes -o 'ProxyJump=ops@[2001:db8::1]' ops@web1 \"$@\"\n"
      "exec ssh -i/keys/\"$USER\"' '\"\${X}\"'$(id)' -p 2222 -i '~/.ssh/'\"$USER\"' key' -o IdentitiesOnly=yes -o 'ProxyJump=ops@[2001:db8::1]' ops@web1 sudo \"$@\"\n"
    ];
  };

  testWithoutHomeManager = {
    expr = (manifest [ ]) ? home-manager;
    expected = false;
  };

  testUsersWithoutSecretsAreLeftOut = {
    expr = (manifest [ { home-manager.users = removeAttrs users [ "alice" ]; } ]) ? home-manager;
    expected = false;
  };

  testHomeManager = {
    expr = (manifest [ { home-manager = { inherit users; }; } ]).home-manager;
    expected.users.alice.secrets = {
      default-cmd = "pass";
      cmd-name-prefix = "users/alice/";
      default-dir = "/home/alice/lollypops-secrets";
      files.ntfy = {
        name = "ntfy";
        vault-name = "users/alice/ntfy";
        cmd = "pass users/alice/ntfy";
        path = "/home/alice/lollypops-secrets/ntfy";
        mode = "0400";
        owner = "alice";
        group-name = null;
        restart-units = [ "nginx.service" ];
        reload-units = [ ];
        when = "before";
        allow-empty = false;
        in-initrd = false;
      };
    };
  };

  # The original home-manager module beside our NixOS module.
  testUsersOfTheOriginalModule = {
    expr =
      let
        secrets = {
          default-cmd = "pass";
          cmd-name-prefix = "";
          default-dir = "/home/alice/lollypops-secrets";
          files.a = {
            name = "a";
            path = "/home/alice/a";
          };
        };
        data = manifest [ { home-manager.users.alice.lollypops = { inherit secrets; }; } ];
      in
      [
        (data.home-manager.users.alice.secrets == secrets)
        data.problems
      ];
    expected = [
      true
      [ ]
    ];
  };

  testUnknownTask = {
    expr = problems [
      {
        lollypops.tasks = [
          "deploy-flake"
          "upgrade"
          "notify"
          "upgrade"
        ];
        lollypops.extraTasks.notify.cmds = [ "true" ];
      }
    ];
    expected = [
      (
        "lollypops.tasks names \"upgrade\", which is neither a built-in task"
        + " (check-vars, deploy-flake, deploy-secrets, rebuild) nor one of lollypops.extraTasks."
      )
      "lollypops.tasks names \"upgrade\" twice."
    ];
  };

  testStepsThatAreNoPartOfADeployment = {
    expr = map problems [
      [
        {
          lollypops.tasks = [
            "check-secrets"
            "reboot"
          ];
        }
      ]
      [
        {
          lollypops.tasks = [ "check-secrets" ];
          lollypops.extraTasks.check-secrets.cmds = [ "true" ];
        }
      ]
    ];
    expected = [
      [
        "lollypops.tasks names \"check-secrets\", which is no part of a deployment; run it by itself."
        "lollypops.tasks names \"reboot\", which is no part of a deployment; run it by itself."
      ]
      [ ]
    ];
  };

  testPasswordCommand = {
    expr = map (sudo: problems [ { lollypops.deployment = { inherit sudo; }; } ]) [
      {
        enable = true;
        command = "/run/wrappers/bin/sudo";
        password-command = "pass ops";
      }
      { password-command = "pass ops"; }
      {
        enable = true;
        command = "sudo -E";
        password-command = "pass ops";
      }
    ];
    expected = [
      [ ]
      [ "lollypops.deployment.sudo.password-command needs sudo.enable." ]
      [
        (
          "lollypops.deployment.sudo.command must be sudo for password-command,"
          + " with its options in sudo.opts, not \"sudo -E\"."
        )
      ]
    ];
  };

  testPasswordCommandWithLocalEvaluation = {
    expr = problems [
      {
        lollypops.deployment.local-evaluation = true;
        lollypops.deployment.sudo.enable = true;
        lollypops.deployment.sudo.password-command = "pass ops";
      }
    ];
    expected = [ ];
  };

  testInitrdSecretsComeBefore = {
    expr = problems [
      {
        home-manager.users.alice = home [
          {
            lollypops.secrets.files.b.when = "after";
            lollypops.secrets.files.b.in-initrd = true;
          }
        ];
        lollypops.secrets.files.a.when = "after";
        lollypops.secrets.files.a.in-initrd = true;
        lollypops.secrets.files.c.when = "after";
      }
    ];
    expected = [
      (
        "lollypops.secrets.files.a.when must be \"before\" with in-initrd,"
        + " since the boot entry is to hold it."
      )
      (
        "home-manager.users.alice.lollypops.secrets.files.b.when must be \"before\" with in-initrd,"
        + " since the boot entry is to hold it."
      )
    ];
  };

  # Of home-manager's secrets too the host decides.
  testUsersHaveNoPrune = {
    expr =
      (builtins.tryEval (builtins.deepSeq (home [ { lollypops.secrets.prune = true; } ]).lollypops null))
      .success;
    expected = false;
  };

  testLocalKeepsTheAddress = {
    expr = (manifest [ { lollypops.deployment.local = true; } ]).deployment.ssh.host;
    expected = "web1";
  };

  # Accounts that the activation script makes: a snippet after them.
  testOwnersBySnippet = {
    expr = owners [ foreign ];
    expected = {
      snippets.lollypops = {
        deps = [
          "users"
          "groups"
        ];
        text = builtins.readFile ../../nix/owners.sh;
      };
      services = { };
    };
  };

  testOwnersByUnit = {
    expr = map (manager: owners [ foreign manager ]) [
      { systemd.sysusers.enable = true; }
      { services.userborn.enable = true; }
    ];
    expected =
      let
        unit = {
          snippets = { };
          services.lollypops-owners = {
            description = "Owners of secrets that waited for them";
            wantedBy = [
              "sysinit.target"
              "sysinit-reactivation.target"
            ];
            before = [
              "sysinit.target"
              "sysinit-reactivation.target"
              "shutdown.target"
            ];
            after = [
              "local-fs.target"
              "systemd-sysusers.service"
              "userborn.service"
            ];
            conflicts = [ "shutdown.target" ];
            unitConfig = {
              DefaultDependencies = false;
              ConditionPathExists = "/var/lib/lollypops/pending";
            };
            serviceConfig.Type = "oneshot";
            path = [
              "/nix/store/00000000000000000000000000000000-coreutils"
              "/nix/store/00000000000000000000000000000000-getent"
            ];
            script = builtins.readFile ../../nix/owners.sh;
          };
        };
      in
      [
        unit
        unit
      ];
  };

  # A group can be missing as well; root's own secrets never wait.
  testOwnersOnlyWhereNeeded = {
    expr = lib.mapAttrs (_: file: (owners [ { lollypops.secrets.files.a = file; } ]).snippets != { }) {
      plain = { };
      rootGroup.group-name = "root";
      group.group-name = "web";
      owner.owner = "web";
    };
    expected = {
      plain = false;
      rootGroup = false;
      group = true;
      owner = true;
    };
  };

  testDuplicatePaths = {
    expr = problems [
      {
        home-manager = { inherit users; };
        lollypops.secrets.files.a.path = "/run/secret";
        lollypops.secrets.files.b.path = "/run/secret";
        lollypops.secrets.files.c.path = "/home/alice/lollypops-secrets/ntfy";
      }
    ];
    expected = [
      (
        "lollypops.secrets.files.c and home-manager.users.alice.lollypops.secrets.files.ntfy"
        + " have the same path, /home/alice/lollypops-secrets/ntfy."
      )
      "lollypops.secrets.files.a and lollypops.secrets.files.b have the same path, /run/secret."
    ];
  };

  testEmptyHost = {
    expr = problems [ { networking.hostName = ""; } ];
    expected = [ "lollypops.deployment.ssh.host is empty; set it, or networking.hostName." ];
  };

  testProblemsAreAssertions = {
    expr =
      (evaluate [
        { options.assertions = lib.mkOption { type = lib.types.listOf lib.types.raw; }; }
        { networking.hostName = ""; }
      ]).config.assertions;
    expected = [
      {
        assertion = false;
        message = "lollypops.deployment.ssh.host is empty; set it, or networking.hostName.";
      }
    ];
  };

  testWrongTypes = {
    expr = lib.filterAttrs (_: options: !(fails [ { lollypops = options; } ])) {
      unknown.deployment.ssh.hots = "web1";
      method.deployment.deploy-method = "push";
      opts.deployment.ssh.opts = "-A";
      configDir.deployment.config-dir = "var/src";
      mode.secrets.files.a.mode = "u=r";
      unit.secrets.files.a.restart-units = [ "nginx" ];
      reload.secrets.files.a.reload-units = "nginx.service";
      blank.secrets.files.a.reload-units = [ "a b.service" ];
      comma.secrets.files.a.reload-units = [ "a.service,b.service" ];
      when.secrets.files.a.when = "later";
      password.deployment.sudo.password-command = [ "pass" ];
      relative.secrets.files.a.path = "secrets/a";
      literal.secrets.files.a.path = ./default.nix;
      inStore.secrets.files.a.path = "${builtins.storeDir}/x";
      function.extraTasks.a.cmds = [ (x: x) ];
      task.tasks = "rebuild";
      port.deployment.ssh.port = 0;
      portText.deployment.ssh.port = "22";
      identity.deployment.ssh.identity-file = ./default.nix;
      confirm.deployment.guard.confirm-timeout = 0;
      units.deployment.guard.on-failed-units = "ignore";
      ignore.deployment.guard.ignore-units = "a.service";
      retries.deployment.health-checks.a = {
        command = "true";
        retries = -1;
      };
      check.deployment.health-checks.a.on = "target";
      where.deployment.health-checks.a = {
        command = "true";
        on = "host";
      };
      manifest.manifest = { };
    };
    expected = { };
  };

  testPathsAndPackagesInTasksAreText = {
    expr =
      (manifest [
        {
          lollypops.extraTasks.a.dir = ./.;
          lollypops.extraTasks.a.cmds = [ (stubs.pkgs.writeShellScriptBin "hello" "") ];
          lollypops.extraTasks.a.desc = null;
        }
      ]).extraTasks.a;
    expected = {
      dir = toString ./.;
      cmds = [ "/nix/store/00000000000000000000000000000000-hello" ];
    };
  };

  testWrongClass = {
    expr =
      (builtins.tryEval
        (lib.evalModules {
          class = "nixos";
          modules = [ (import ../../nix/home.nix) ];
        }).config.lollypops
      ).success;
    expected = false;
  };
}
