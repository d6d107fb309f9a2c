"""Makes a Tryton to try the bridge with: a company, Sato of its sales, and a user for the bridge.

  python prepare.py FOLDER    FOLDER/tryton.conf and FOLDER/sfa.sqlite

It is for trying only: everybody can read its passwords here.
"""

import decimal
import os
import pathlib
import subprocess
import sys

PASSWORDS = {"admin": "admin's words 1", "sato": "sato's words 22", "mikomi": "mikomi's words 3"}
CONFIGURATION = """[database]
uri = sqlite://
path = {folder}
[session]
authentications = password
"""


def configure(folder):
    """The settings of a Tryton whose database is in a folder."""
    configuration = folder / "tryton.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder))
    return configuration


def activate(folder):
    """The tables of the modules for leads and opportunities, and the first user."""
    configuration = configure(folder)
    (folder / "sfa.sqlite").touch()
    secret = folder / "admin.txt"
    secret.write_text(PASSWORDS["admin"])
    admin = [str(pathlib.Path(sys.executable).parent / "trytond-admin"), "-c", str(configuration),
             "-d", "sfa"]
    environment = {**os.environ, "TRYTONPASSFILE": str(secret)}
    for step in (["--all", "--email", "admin@vendor.example"],
                 ["-u", "sale_opportunity", "--activate-dependencies"]):
        subprocess.run(admin + step, env=environment, check=True)
    secret.unlink()
    return configuration


def fill(configuration):
    from proteus import Model, Wizard, config
    settings = config.set_trytond("sfa", config_file=str(configuration))
    get = Model.get

    yen = get("currency.currency")(name="Yen", code="JPY", symbol="¥", numeric_code="392",
                                   digits=0, rounding=decimal.Decimal(1))
    yen.save()
    vendor = get("party.party")(name="Vendor K.K.")
    vendor.save()
    wizard = Wizard("company.company.config")
    wizard.execute("company")
    wizard.form.party, wizard.form.currency = vendor, yen
    wizard.execute("add")
    settings._context = get("res.user").get_preferences(True, {})
    company, = get("company.company").find([])

    person = get("party.party")(name="佐藤 健")
    person.contact_mechanisms.new(type="email", value="sato@vendor.example")
    person.save()
    sato = get("company.employee")(party=person, company=company)
    sato.save()

    groups = ["Sale", "Sale Opportunity", "Party Administration"]
    for login, name, employee in (("sato", "佐藤 健", sato), ("mikomi", "mikomi", None)):
        user = get("res.user")(login=login, name=name, password=PASSWORDS[login],
                               email=f"{login}@vendor.example")
        for group in get("res.group").find([("name", "in", groups)]):
            user.groups.append(group)
        user.companies.append(get("company.company")(company.id))
        user.company = company
        if employee:
            user.employees.append(get("company.employee")(employee.id))
            user.employee = employee
        user.save()


if __name__ == "__main__":
    place = pathlib.Path(sys.argv[1]).resolve()
    place.mkdir(parents=True, exist_ok=True)
    fill(activate(place))
